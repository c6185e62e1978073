"""The way of a model from raw data to a version, the same for every model: its stages, run by DVC."""
