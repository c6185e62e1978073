"""Where a feature store plugs in: Feast on its local provider, with the iris measurements.

Optional, with an environment of its own (requirements.txt); nothing else of the project imports it.
"""

import os

NAME = os.environ.get("FEATURE_STORE_MODEL") or "iris"
"""The model, a folder of models/: it is trained on Fisher's flowers."""
