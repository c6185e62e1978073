"""The models. A new one is a folder here, and changes nothing outside it."""
