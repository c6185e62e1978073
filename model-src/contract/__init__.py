"""What every program agrees on about a model version: its digest, manifest, URI and signatures, and the verdict on it.

The model code writes and reads by it, and so do the commands of the repository around it; nothing of either is imported
here. `errors`, `command`, `digest` and `uri` need the standard library alone, the others pydantic, and a check of a
signature cryptography and model-signing, imported when there is one to check.
"""
