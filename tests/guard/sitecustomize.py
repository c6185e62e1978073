"""What Python imports at its start."""

import os

import guard

if guard.OWNED in os.environ:
    guard.install(dict(os.environ))
