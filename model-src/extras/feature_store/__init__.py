"""Where a feature store plugs in: Feast on its local provider, with the flowers that the skeleton of a classification
starts from.

Optional, with an environment of its own (requirements.txt); nothing else of the project imports it.
"""
