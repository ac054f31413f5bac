"""An evaluation under way: every method on every person, one record each, which an interrupted run does not repeat."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import nn
from tqdm import tqdm

from core.errors import SettingsError
from core.hyperdreambooth.formats.lidb_weights import LidbWeights
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import decode_latents, encode_pictures
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import sample_latents, zeros
from core.lab.evaluation.methods import Method, Personalized
from core.lab.evaluation.metrics import Made, Metrics, measure, prompts
from core.lab.evaluation.subjects import Subject

log = logging.getLogger(__name__)

Record = dict[str, float | str]


@dataclass(frozen=True)
class Study:
    """People twice (``chosen`` at the bundle's resolution, ``large`` for the judges), who judges, and how much is made.

    ``strangers`` are whom pictures are held against as well, themselves left out: they do not depend on how many people
    are chosen, so that a study of more people goes on from one of fewer.

    ``photos`` of each person are used. ``group`` people are personalized in one batch, by methods that can. ``styles``
    and ``attributes`` are prompted for once each a person, the plain prompt ``pictures`` times. ``judged_by`` says
    which judges those are.
    """

    bundle: Bundle
    folder: Path
    chosen: Sequence[Subject]
    large: Sequence[Subject]
    strangers: Sequence[Subject]
    judges: Metrics
    photos: int = 1
    pictures: int = 4
    group: int = 6
    seed: int = 0
    styles: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    judged_by: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def recognised(self) -> Mapping[str, Float[np.ndarray, " embedding"]]:
        """What the recogniser sees in each stranger, by identity; nothing without one."""
        judge = self.judges.recogniser
        return {} if judge is None else {other.identity: judge(other.photo[None])[0] for other in self.strangers}

    def settle(self) -> None:
        """Note the settings in the folder. Raises SettingsError when it holds an evaluation with other ones."""
        settings = {
            "bundle": self.bundle.name,
            "fingerprint": self.bundle.fingerprint,
            "config": self.bundle.config.to_json(),
            **({"photos": self.photos} if self.photos > 1 else {}),
            "pictures": self.pictures,
            "group": self.group,
            "seed": self.seed,
            "prompts": prompts(self.styles, self.attributes, self.bundle.class_noun),
            "hypernetwork": _digest(_numbers(self.bundle.hypernetwork)),
            "photos of": _digest(stranger.photo for stranger in self.strangers),
            "judges": dict(self.judged_by),
        }
        file = self.folder / "settings.json"
        text = json.dumps(settings, indent=1) + "\n"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        elif file.read_text() != text:
            raise SettingsError(f"{self.folder} holds an evaluation with other settings: give another --output")

    def run(self, method: Method, rate: float | None) -> list[Record]:
        """One record for each person; those of an earlier run are read, those of another process waited for."""
        self.take(method, rate)
        self.take(method, rate, wait=True)
        done = _read(self._file(method, rate))
        return [done[subject.identity] for subject in self.chosen]

    def take(self, method: Method, rate: float | None, *, wait: bool = False) -> None:
        """Measure who is left. Several processes may share a folder (one on each GPU, say): a group that another one is
        at is left to it, or waited for.
        """
        step = self.group if method.together else 1
        groups = [range(first, min(first + step, len(self.chosen))) for first in range(0, len(self.chosen), step)]
        for group in tqdm(groups, desc=method.name, unit="group", disable=wait):
            self._measure(method, rate, group, wait=wait)

    def _file(self, method: Method, rate: float | None) -> Path:
        return self.folder / "records" / f"{label(method, rate)}.jsonl"

    def _measure(self, method: Method, rate: float | None, group: range, *, wait: bool) -> None:
        """Append the records that ``group`` lacks; without ``wait``, nothing where another process is at it."""
        file = self._file(method, rate)
        with _locked(file.with_suffix("") / f"{group.start:03}.lock", wait=wait) as mine:
            done = _read(file)
            part = [index for index in group if self.chosen[index].identity not in done]
            if not mine or not part:
                return
            _ = self.bundle.basis, self.bundle.fingerprint  # worked out once for everybody: nobody's seconds
            began = time.perf_counter()
            people = method.run(self.bundle, [self.chosen[index] for index in part], self.seed, rate)
            seconds = (time.perf_counter() - began) / len(part)
            for index, person in zip(part, people, strict=True):
                record = self._record(method, index, person, folder=file.with_suffix(""))
                _append(file, {**record, "seconds": round(seconds, 3)})

    def _record(self, method: Method, index: int, person: Personalized, folder: Path) -> Record:
        began = time.perf_counter()
        made = self._draw(method, person, seed=self.seed + 1000 * index)
        count = len(made.plain) + len(made.styled) + len(made.attributes)
        seconds = (time.perf_counter() - began) / count
        subject = self.large[index]
        strangers = [seen for identity, seen in self.recognised.items() if identity != subject.identity]
        numbers = measure(self.judges, subject, self.chosen[index].photo, strangers, made, self.bundle.class_noun)
        _save_strip(made, folder / f"{index:03}.png")
        return {
            "identity": self.chosen[index].identity,
            "bytes": person.stored_bytes,
            "seconds_per_picture": round(seconds, 4),
            **numbers,
        }

    def _draw(self, method: Method, person: Personalized, *, seed: int) -> Made:
        asked = prompts(self.styles, self.attributes, self.bundle.class_noun)
        texts = [asked.pop("")] * self.pictures + list(asked.values())
        if not method.identifier:
            texts = [text.replace("[V] ", "") for text in texts]
        pictures = draw(person, texts, seed=seed)
        named = dict(zip(asked, pictures[self.pictures :, None], strict=True))
        return Made(
            plain=pictures[: self.pictures],
            styled={name: named[name] for name in self.styles},
            attributes={name: picture for name, picture in named.items() if name not in self.styles},
        )


def label(method: Method, rate: float | None) -> str:
    """The name of a method's records; one with a learning rate of its own has it in the name."""
    return method.name if rate is None else f"{method.name}@{rate:g}"


def ceiling(study: Study) -> list[Record]:
    """What the autoencoder alone keeps: records with the cosine of a reconstruction with the original photo."""
    judge = study.judges.recogniser
    assert judge is not None
    photos = torch.from_numpy(np.stack([subject.photo for subject in study.chosen]))
    with torch.inference_mode():
        parts = photos.split(study.bundle.config.sampling.batch)
        again = torch.cat([decode_latents(study.bundle, encode_pictures(study.bundle, part)).cpu() for part in parts])
    cosines = (judge(again.numpy()) * judge(np.stack([subject.photo for subject in study.large]))).sum(1)
    return [{"identity": s.identity, "photo": float(c)} for s, c in zip(study.chosen, cosines, strict=True)]


def draw(person: Personalized, texts: Sequence[str], *, seed: int) -> UInt8[np.ndarray, "n h w 3"]:
    """One picture for each prompt, with seeds from ``seed`` on."""
    bundle = person.bundle
    factors = zeros(bundle) if person.factors is None else person.factors
    rows: list[Row[LidbWeights]] = [Row(text, seed=seed + number) for number, text in enumerate(texts)]
    limit, side, steps = bundle.config.sampling.batch, bundle.resolution, bundle.config.sampling.steps
    parts = []
    for first in range(0, len(rows), limit):
        part = rows[first : first + limit]
        latents = sample_latents(bundle, part, [factors] * len(part), steps=steps, size=(side, side))
        with torch.inference_mode():
            parts.append(decode_latents(bundle, latents).cpu())
    pictures: np.ndarray = torch.cat(parts).numpy()
    return pictures


def _numbers(network: nn.Module | None) -> list[np.ndarray]:
    return [] if network is None else [tensor.cpu().numpy() for tensor in network.state_dict().values()]


def _digest(parts: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _read(file: Path) -> dict[str, Record]:
    if not file.is_file():
        return {}
    records: list[Record] = [json.loads(line) for line in file.read_text().splitlines()]
    return {str(record["identity"]): record for record in records}


def _append(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
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


def _save_strip(made: Made, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = [*made.plain, *(p for each in (made.styled, made.attributes) for ps in each.values() for p in ps)]
    Image.fromarray(np.concatenate(pictures, axis=1)).save(file)
