"""Figures of the models and their monitoring, each beside another way."""
