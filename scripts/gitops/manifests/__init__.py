"""Manifests: edited, rendered, compared, and what their objects hold."""
