"""The service: predictions over HTTP from one model version, verified before it answers."""
