"""The MLflow server, or database, that all commands here use, and silence about itself."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

from contract import waiting


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def shown(text: str) -> str:
    """A text of MLflow's, or the address itself, without the user's name and password in the address."""
    user, at, _ = urlsplit(uri()).netloc.rpartition("@")
    return text.replace(uri(), uri().replace(f"{user}{at}", "", 1)) if at else text


def _limit() -> waiting.Limit:
    """Of all that is asked of the server within one block: MLflow's own time-outs are of single reads."""
    from urllib3 import connectionpool

    waiting.watch(connectionpool.HTTPConnectionPool, connectionpool.HTTPSConnectionPool)
    remedy = "check the network and the server, then run the command again"
    return waiting.Limit(f"MLflow at {shown(uri())} (MLFLOW_TRACKING_URI)", remedy, waiting.ANSWER, in_all=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps stdout for results, and MLflow's remarks about itself off the terminal; failures are exceptions."""
    # Read on import. Nobody who trains a model has agreed to be counted.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that is away is reported within seconds instead of minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    with (
        _limit(),
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
