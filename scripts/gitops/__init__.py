"""What the commands in `scripts/` share, in rooms, each of which uses only those below it; none of it is a command."""

import importlib.util
import sys
from pathlib import Path

# A command started with an interpreter that lacks the project's environment ends with one line, whatever it imports
# first. Only setup.py, which makes the environment, does without.
_PACKAGES = ("boto3", "cronsim", "jsonschema", "model_signing", "pydantic", "ruamel", "tabulate", "yaml")
_missing = [name for name in _PACKAGES if not importlib.util.find_spec(name)]
if _missing and Path(sys.argv[0]).name != "setup.py":
    sys.exit(
        f"error: {sys.executable} lacks {', '.join(_missing)}: run `make setup`, then `source .venv/bin/activate`"
        " or call the command with .venv/bin/python"
    )

# What both Python projects agree on about a model version stands in model-src/, which has to do without this one. Last,
# as nothing else of that folder is to be found in the place of a module of this one.
sys.path.append(str(Path(__file__).resolve().parents[2] / "model-src"))
