"""A fake engine, for tests and rehearsals of everything around the real one: `HDB_ENGINE=worker.testing:FakeEngine`.

Its part is written in the data folder, in `rehearsal.json`, and it keeps a diary in `diary.jsonl` beside it. It is
quick, deterministic (weights and pictures are hashes of what they are made from) and, on cue, as bad as a process gets.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel

from core.errors import BundleError, JobCanceled
from core.hyperdreambooth.formats.exports import Layout
from core.hyperdreambooth.model.config import LidbConfig
from core.hyperdreambooth.model.target import Target
from core.settings import Settings
from worker.engine import OnProgress, Personalized, PersonalizeOptions, Row


class Rehearsal(BaseModel):
    """What happens: how many steps of which length, and at which step of how many runs something goes wrong."""

    steps: int = 3
    step_seconds: float = 0.0
    fault: str = ""
    """`kill` (the process, by signal 9), `hang` or `raise`."""
    fault_step: int = 1
    fault_runs: int = 1_000_000
    refuse_to_load: bool = False
    hypernetwork: bool = True
    """Whether there is a preview."""
    second_look: bool = False
    """Whether there is another one when finetuning is over."""


class FakeEngine:
    """See Engine."""

    name = "fake"
    fingerprint = "fake-1"
    size = 8
    layout = Layout(
        pins={"bundle": "fake", "fingerprint": "fake-1", "basis": "fake-basis"},
        lidb=LidbConfig(),
        layers=(Target("unet.layer", 8, 8),),
        resolution=8,
        text_width=8,
    )

    def __init__(self, settings: Settings) -> None:
        self._folder = Path(settings.data_dir)
        if self._rehearsal().refuse_to_load:
            raise BundleError("there is no such bundle")
        self._note("loaded")

    def personalize(
        self,
        photos: UInt8[np.ndarray, "n h w 3"],
        options: PersonalizeOptions,
        *,
        on_progress: OnProgress,
        on_preview: Callable[[bytes], None],
        should_stop: Callable[[], bool],
    ) -> Personalized:
        """See Engine: the preview is a hash of the photos, the weights one of photos and options."""
        preview = hashlib.sha256(photos.tobytes()).hexdigest().encode()
        has_preview = self._rehearsal().hypernetwork and options.start is None
        if has_preview:
            on_progress("hypernetwork", 1, 1)
            on_preview(preview)
        steps = self._play("finetune", "personalize", options.steps, on_progress, should_stop)
        weights = hashlib.sha256(preview + repr(options).encode()).hexdigest().encode()
        if has_preview and self._rehearsal().second_look:
            preview = weights
            on_preview(preview)
        return Personalized(
            weights,
            preview if has_preview else None,
            likeness_by={"bundle": 0.5},
            kept_step=steps,
            seconds={"finetune": 0.0},
        )

    def preview(
        self, row: Row, *, on_progress: OnProgress, should_stop: Callable[[], bool]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """See Engine: one step, the same picture as `generate` makes, and no note of it in the diary."""
        if should_stop():
            raise JobCanceled
        on_progress("generate", 1, 1)
        return self._picture(row, (self.size, self.size, 3))

    def generate(
        self,
        rows: Sequence[Row],
        *,
        steps: int | None,
        height: int | None,
        width: int | None,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """See Engine: each picture's one colour is a hash of its row."""
        self._play("generate", "generate", steps, on_progress, should_stop, rows=len(rows))
        shape = (height or self.size, width or self.size, 3)
        return np.stack([self._picture(row, shape) for row in rows])

    def diary(self) -> list[dict[str, Any]]:
        """What happened so far, in all processes."""
        return read_diary(self._folder)

    def _picture(self, row: Row, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w 3"]:
        colour = list(hashlib.sha256(repr(row).encode()).digest()[:3])
        return np.full(shape, colour, dtype=np.uint8)

    def _play(
        self,
        stage: str,
        what: str,
        steps: int | None,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
        **details: int,
    ) -> int:
        rehearsal = self._rehearsal()
        runs = sum(entry["event"] == f"{what}.begun" for entry in self.diary())
        total = steps or rehearsal.steps
        self._note(f"{what}.begun", **details)
        for step in range(1, total + 1):
            if should_stop():
                self._note(f"{what}.stopped", step=step)
                raise JobCanceled
            on_progress(stage, step, total)
            time.sleep(rehearsal.step_seconds)
            if step == rehearsal.fault_step and runs < rehearsal.fault_runs:
                self._go_wrong(rehearsal.fault)
        self._note(f"{what}.done")
        return total

    def _go_wrong(self, fault: str) -> None:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":  # as a kernel of the device does: no signal that can be handled gets through
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(3600)
        if fault == "raise":
            raise RuntimeError("this text must not reach anybody")

    def _rehearsal(self) -> Rehearsal:
        script = self._folder / "rehearsal.json"
        return Rehearsal.model_validate_json(script.read_bytes()) if script.exists() else Rehearsal()

    def _note(self, event: str, **details: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        entry = {"event": event, "pid": os.getpid(), "at": time.time(), **details}
        with (self._folder / "diary.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read_diary(folder: Path) -> list[dict[str, Any]]:
    """What fake engines with this data folder have done."""
    diary = folder / "diary.jsonl"
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []
