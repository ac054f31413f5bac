"""Records of an evaluation: one line of JSON a person, in a file for each row, that an interrupted run goes on from."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from core.errors import SettingsError

Record = dict[str, Any]
"""The numbers of one person in one row, and the person's ``identity``."""

Measure = Callable[[Sequence[int]], Iterable[Record]]
"""Numbers of people to their records, in that order."""


def settle(folder: Path, settings: Mapping[str, object]) -> None:
    """Note the settings in the folder. Raises SettingsError when it holds an evaluation with other ones."""
    file, text = folder / "settings.json", json.dumps(settings, indent=1) + "\n"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    elif file.read_text() != text:
        raise SettingsError(f"{folder} holds an evaluation with other settings: give another --output")


def fill(file: Path, identities: Sequence[str], group: int, measure: Measure, *, wait: bool = False) -> None:
    """Append the records that ``file`` lacks, ``group`` people at a time.

    Several processes may share a file (one on each GPU, say): a group that another one is at is left to it, or, with
    ``wait``, waited for.
    """
    starts = range(0, len(identities), group)
    for first in tqdm(starts, desc=file.stem, unit="group", disable=wait):
        with _locked(file.with_suffix("") / f"{first:03}.lock", wait=wait) as mine:
            done = read(file)
            members = range(first, min(first + group, len(identities)))
            left = [index for index in members if identities[index] not in done]
            if mine and left:
                _append(file, measure(left))


def complete(file: Path, identities: Sequence[str], group: int, measure: Measure) -> list[Record]:
    """One record for each person; those of an earlier run are read, those of another process waited for."""
    fill(file, identities, group, measure)
    fill(file, identities, group, measure, wait=True)
    done = read(file)
    return [done[identity] for identity in identities]


def read(file: Path) -> dict[str, Record]:
    """The records there are, by identity."""
    if not file.is_file():
        return {}
    records: list[Record] = [json.loads(line) for line in file.read_text().splitlines()]
    return {str(record["identity"]): record for record in records}


def digest(parts: Iterable[np.ndarray]) -> str:
    """A hash of arrays, to know them again by."""
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def weights_of(network: nn.Module | None) -> list[np.ndarray]:
    """The arrays of a network; none of none."""
    return [] if network is None else [tensor.cpu().numpy() for tensor in network.state_dict().values()]


def _append(file: Path, records: Iterable[Record]) -> None:
    for record in records:
        with file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")


@contextmanager
def _locked(file: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process alone has ``file`` until it ends, or dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
