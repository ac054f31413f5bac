"""What fails as `faults.json` in the data folder says: an engine for `HDB_ENGINE`, and the store of a process."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from core.jobs import ledger
from core.settings import Settings
from core.storage import FolderStore
from worker.engine import OnProgress, Row
from worker.testing import FakeEngine

POISON = "poison"
"""A prompt with this word fails wherever it runs."""
SCRIPTS = {
    "fencing": {" or seen[2] ~= fence then return 'lost'": " then return 'lost'"},
    "claims": {"  leave(candidate)\n": "", "if get(found[i], 'state') ~= 'queued' then": "if false then"},
}
"""What can be switched off: which texts of a script become which."""
HOLD_SECONDS = 3
STORE_FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "failing": errno.EIO}


class FaultyEngine(FakeEngine):
    """As FakeEngine, without its log of calls; the process runs by `tests.faults.broken`, which breaks the rest."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._faults_file = Path(settings.data_dir) / "faults.json"

    def _note(self, event: str, **details: int) -> None:
        """Nothing: a thousand jobs would make it long."""

    def generate(
        self,
        rows: Sequence[Row],
        *,
        steps: int | None,
        height: int | None,
        width: int | None,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
    ) -> UInt8[np.ndarray, "h w 3"]:
        """See Engine."""
        fault = read_faults(self._faults_file).get("engine", "")
        if fault == "slow":
            self._faults_file.with_name("holder").write_text(str(os.getppid()))
        for step in range(1, 4):
            if should_stop():
                break
            on_progress("generate", step, 3)
            time.sleep(2.0 if fault == "slow" else 0.01)
        if fault == "holds":  # the interpreter's lock: no other thread of this process runs meanwhile
            ctypes.PyDLL(None).sleep(HOLD_SECONDS)
        if fault == "memory":
            raise MemoryError
        if fault == "sick":
            self._is_sick = True
        self.check()
        if any(POISON in row.prompt for row in rows):
            raise RuntimeError("poison")
        return super().generate(
            rows, steps=1, height=height, width=width, on_progress=on_progress, should_stop=should_stop
        )


def switch_off(what: str) -> None:
    """Let this process's scripts go without a mechanism."""
    if what not in SCRIPTS:
        return
    sources = ledger.script

    def script(name: str) -> str:
        source = sources(name)
        for text, without in SCRIPTS[what].items():
            source = source.replace(text, without)
        return source

    assert all(text in sources("claim") for text in SCRIPTS[what])
    ledger.script = script


def break_writes(fault: Callable[[], str]) -> None:
    """Let this process's store fail as `fault` says, whenever it writes."""
    write: Any = FolderStore._write

    def faulty(store: FolderStore, target: Path, data: bytes) -> None:
        while (kind := fault()) == "frozen":
            time.sleep(0.1)
        if kind == "slow":
            time.sleep(0.3)
        elif kind:
            raise OSError(STORE_FAULTS[kind], os.strerror(STORE_FAULTS[kind]))
        write(store, target, data)

    ping = FolderStore.ping

    def faulty_ping(store: FolderStore) -> None:
        ping(store)
        if fault() in STORE_FAULTS:
            store.put("probe", b"")

    FolderStore._write = faulty  # type: ignore[method-assign]
    FolderStore.ping = faulty_ping  # type: ignore[method-assign]


def read_faults(file: Path) -> dict[str, str]:
    """What is broken now."""
    try:
        found: dict[str, str] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found
