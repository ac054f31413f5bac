"""What a worker's child tells its parent, in memory that both have: it outlives the child, however that ends.

No lock is in it (an Event has one): a child that is killed holding it would block the parent.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from multiprocessing.sharedctypes import RawArray, RawValue

from core.jobs.ledger import Claim

_SLOT = 1 << 16
_REST_SECONDS = 6.0
"""After a failure: longer than the job waits that failed, so that another worker gets it if there is one."""
QUARANTINE_FAILURES = 3
"""Failures in a row, with different jobs, after which a worker is in quarantine."""
_QUARANTINE_SECONDS, _LONGEST_SECONDS = 60.0, 600.0


class Shared:
    """Made before the fork. The child writes; the parent reads, and writes once the child is dead."""

    def __init__(self) -> None:
        self.stopping = RawValue("b", 0)
        """The parent was told to stop."""
        self.loaded = RawValue("b", 0)
        """The child has loaded its model, and its device computes."""
        self.load_failed = RawValue("b", 0)
        """The model cannot be loaded."""
        self.pid = RawValue("i", 0)
        self._beat_at = RawValue("d", 0.0)
        self._slots = [RawArray("c", _SLOT), RawArray("c", _SLOT)]
        self._current = RawValue("b", 0)
        self._failures = RawValue("i", 0)
        self._last_failed = RawValue("I", 0)
        self._rest_until = RawValue("d", 0.0)

    def begin(self) -> None:
        """A new child is there: this process."""
        self.loaded.value = 0
        self.pid.value = os.getpid()
        self.beat()

    def beat(self) -> None:
        """The child's threads run."""
        self._beat_at.value = time.monotonic()

    def silent_seconds(self) -> float:
        """How long the child's threads have not run, while it holds jobs."""
        return time.monotonic() - float(self._beat_at.value)

    def hold(self, claims: Sequence[Claim]) -> None:
        """The child holds these jobs now. A reader sees all of the old ones or all of the new ones."""
        text = json.dumps([[claim.ref, claim.attempt, claim.fence] for claim in claims]).encode()
        other = 1 - self._current.value
        self._slots[other].value = text if len(text) < _SLOT else b"[]"
        self._current.value = other

    def claims(self) -> list[Claim]:
        """The jobs that the child holds, or held when it died."""
        text = self._slots[self._current.value].value
        return [Claim(*parts) for parts in json.loads(text or b"[]")]

    @property
    def rest_seconds(self) -> float:
        """How long the worker should leave jobs to others after a failure."""
        return max(0.0, float(self._rest_until.value) - time.monotonic())

    @property
    def is_quarantined(self) -> bool:
        """Whether it failed so often that it claims nothing for a while; then it tries one job."""
        return bool(self._failures.value >= QUARANTINE_FAILURES and self.rest_seconds)

    def note_success(self) -> None:
        """A job has succeeded."""
        self._failures.value = 0
        self._last_failed.value = 0

    def note_failure(self, ref: str, *, weight: int = 1, rests: bool = True) -> None:
        """The child failed with this job, for an unknown reason; the same job again may be the job's own fault."""
        name = zlib.crc32(ref.encode())
        if name != self._last_failed.value:
            self._failures.value += weight
        self._last_failed.value = name
        over = self._failures.value - QUARANTINE_FAILURES
        if over >= 0:
            self._rest(min(_QUARANTINE_SECONDS * 2**over, _LONGEST_SECONDS))
        elif rests:
            self._rest(_REST_SECONDS)

    def _rest(self, seconds: float) -> None:
        self._rest_until.value = time.monotonic() + seconds
