"""Manifests: edited, rendered, compared, and what their objects say."""
