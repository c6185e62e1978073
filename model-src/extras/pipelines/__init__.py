"""The lifecycle as a Kubeflow pipeline."""
