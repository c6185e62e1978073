"""What not every team needs, and nothing else imports: a feature store, Kubeflow, figures."""
