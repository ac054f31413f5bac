"""A fake engine, for tests of everything around the real one: `HDB_ENGINE=worker.testing:FakeEngine`.

It reads its script from `fake-engine.json` in the data folder, and logs its calls to `calls.jsonl` beside it. It is
quick and deterministic (weights and pictures are hashes of what they are made from), and fails as its script says.
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
from worker.identities import Embeddings


class FakeScript(BaseModel):
    """What happens: how many steps of which length, and at which step of how many runs something goes wrong."""

    steps: int = 3
    step_seconds: float = 0.0
    fault: str = ""
    """`kill` (the process, by signal 9), `hang`, `freeze` (no thread runs), `raise`, `memory`, or `sick`: an error
    after which the process refuses everything, as after an error of CUDA."""
    fault_step: int = 1
    fault_runs: int = 1_000_000
    refuse_to_load: bool = False
    crash_to_load: bool = False
    """Loading fails with an error that is not ours."""
    sick_workers: tuple[int, ...] = ()
    """Process ids of workers whose device refuses everything, in each of their children."""
    weak_workers: tuple[int, ...] = ()
    """Likewise, but the self-test does not find it."""
    hypernetwork: bool = True
    """Whether there is a preview."""
    second_preview: bool = False
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
    description = None

    def __init__(self, settings: Settings) -> None:
        self._folder = Path(settings.data_dir)
        if self._script().refuse_to_load:
            raise BundleError("there is no such bundle")
        if self._script().crash_to_load:
            raise RuntimeError("this is no model")
        self._is_sick = False
        self._note("loaded")

    def check(self) -> None:
        """See Engine."""
        if self._is_sick or os.getppid() in self._script().sick_workers:
            raise RuntimeError("the device does not answer")

    def device_memory(self) -> dict[str, int]:
        """See Engine."""
        return {"allocated": 1, "reserved": 2, "total": 3}

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
        has_preview = self._script().hypernetwork and options.start is None
        if has_preview:
            on_progress("hypernetwork", 1, 1)
            on_preview(preview)
        steps = self._play("finetune", "personalize", options.steps, on_progress, should_stop)
        weights = hashlib.sha256(preview + repr(options).encode()).hexdigest().encode()
        if has_preview and self._script().second_preview:
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
        """See Engine: one step, the same picture as `generate` makes, and no note of it in the calls."""
        if should_stop():
            raise JobCanceled
        on_progress("generate", 1, 1)
        return self._picture(row, (self.size, self.size, 3))

    def embed(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Embeddings:
        """See Engine: all pictures are half alike."""
        return {"bundle": np.full((len(pictures), 2), 0.5)}

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

    def calls(self) -> list[dict[str, Any]]:
        """What happened so far, in all processes."""
        return read_calls(self._folder)

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
        script = self._script()
        runs = sum(entry["event"] == f"{what}.begun" for entry in self.calls())
        total = steps or script.steps
        self.check()
        if os.getppid() in script.weak_workers:
            raise RuntimeError("the device does not answer")
        self._note(f"{what}.begun", **details)
        for step in range(1, total + 1):
            if should_stop():
                self._note(f"{what}.stopped", step=step)
                raise JobCanceled
            on_progress(stage, step, total)
            time.sleep(script.step_seconds)
            if step == script.fault_step and runs < script.fault_runs:
                self._go_wrong(script.fault)
        self._note(f"{what}.done")
        return total

    def _go_wrong(self, fault: str) -> None:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":  # as a kernel of the device does: no signal that can be handled gets through
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(3600)
        if fault == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "memory":
            raise MemoryError("this text must not reach anybody")
        if fault == "sick":
            self._is_sick = True
            self.check()
        if fault == "raise":
            raise RuntimeError("this text must not reach anybody")

    def _script(self) -> FakeScript:
        file = self._folder / "fake-engine.json"
        return FakeScript.model_validate_json(file.read_bytes()) if file.exists() else FakeScript()

    def _note(self, event: str, **details: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        entry = {"event": event, "pid": os.getpid(), "at": time.time(), **details}
        with (self._folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read_calls(folder: Path) -> list[dict[str, Any]]:
    """What fake engines with this data folder have done."""
    file = folder / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
