"""Kubernetes API servers, and one on this machine."""
