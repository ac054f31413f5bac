"""What a job needs of a worker, and what a worker offers; the ledger compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FORMAT = 1
"""The format of requests that this version writes, and the newest that it can run. A field that an older worker must
not leave out raises it."""


@dataclass(frozen=True)
class Demand:
    """What the ledger goes by.

    `group` and `rows` as in GenerateRequest: what may share a batch, and how many pictures it has there. `work` in
    pictures, as core/work.py tells it. Only a worker that runs the base model with the fingerprint `model` (any, when
    it is empty), and requests of this `format`, can do it. `refines`: its subject has weights already.
    """

    group: str = ""
    rows: int = 1
    work: float = 1.0
    model: str = ""
    format: int = 0
    refines: bool = False

    @property
    def needs(self) -> str:
        """The format and the model, as the ledger writes them."""
        return f"{self.format}:{self.model}"


@dataclass(frozen=True)
class Offer:
    """What a worker can do: the fingerprint of its base model (None: whatever), and the newest format that it runs."""

    model: str | None = None
    format: int = FORMAT


DEFAULT_DEMAND = Demand()
ANY_JOB = Offer()
"""A worker that can do every job."""


def left_out(given: Any, kept: Any) -> bool:
    """Whether JSON that was read as a record has fields, with values, that this version of the record does not."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return any(left_out(value, kept.get(name)) for name, value in given.items())
    if isinstance(given, list) and isinstance(kept, list):
        return any(left_out(*pair) for pair in zip(given, kept, strict=False))
    return bool(given) and kept is None
