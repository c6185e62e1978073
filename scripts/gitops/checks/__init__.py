"""Rules: what must hold of the manifests, and of a change of them."""
