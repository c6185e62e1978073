"""Whether the service can answer, and if not, why: written by the loader and the process, read by the app."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from contract.errors import Refused
from serving.model import Model
from storage import Unavailable

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between two tries."""


class State:
    def __init__(self) -> None:
        self.model: Model | None = None
        self._waits_for = "loading the model"
        self.failure: Refused | None = None
        self.stopping = threading.Event()

    @property
    def ready(self) -> Model | None:
        """The model, while new requests should come here."""
        return None if self.stopping.is_set() else self.model

    @property
    def reason(self) -> str:
        """Why the service is not ready."""
        return "stopping" if self.stopping.is_set() else self._waits_for

    def stop(self) -> None:
        self.stopping.set()

    def load(self, load: Callable[[], Model], say: Callable[[str], None]) -> None:
        """Calls `load` until it gives a model, a fault that no waiting cures, or the service stops.

        `say` gets one line for each reason to wait that differs from the one before.
        """
        delay = FIRST_DELAY
        while not self.stopping.is_set():
            try:
                self.model = load()
                return
            except Refused as refused:
                self.failure = refused
                return
            except Unavailable as unavailable:
                line = " ".join(str(unavailable).split())
                if line != self._waits_for:
                    say(f"not ready, trying again: {line}")
                self._waits_for = line
            # A thread that died unnoticed would leave the service waiting for nothing.
            except Exception as error:
                self.failure = Refused(f"loading the model: {type(error).__name__}: {' '.join(str(error).split())}")
                return
            # Pods that started together should not ask together.
            self.stopping.wait(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, LONGEST_DELAY)
