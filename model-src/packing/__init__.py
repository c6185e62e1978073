"""How a trained model becomes an immutable model version.

Serving imports `labels` and `runtime` from here, which therefore need nothing that trains a model.
"""
