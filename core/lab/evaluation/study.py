"""An evaluation under way: every method on every person, one record each, which an interrupted run does not repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from core.hyperdreambooth.model.bundle import Bundle
from core.lab.evaluation.drawing import draw, through_autoencoder
from core.lab.evaluation.methods import Method, Personalized
from core.lab.evaluation.metrics import Made, Metrics, measure, prompts
from core.lab.evaluation.records import Record, complete, digest, fill, settle, weights_of
from core.lab.evaluation.subjects import Subject


@dataclass(frozen=True)
class Study:
    """People twice (``chosen`` at the bundle's resolution, ``large`` to be measured), and what is generated for them.

    ``strangers`` are whom pictures are held against as well, themselves left out: they do not depend on how many people
    are chosen, so that a study of more people goes on from one of fewer.

    ``photos`` of each person are used. ``group`` people are personalized in one batch, by methods that can. ``styles``
    and ``attributes`` are prompted for once each a person, the plain prompt ``pictures`` times. ``measured_by`` says
    which models those are.
    """

    bundle: Bundle
    folder: Path
    chosen: Sequence[Subject]
    large: Sequence[Subject]
    strangers: Sequence[Subject]
    metrics: Metrics
    photos: int = 1
    pictures: int = 4
    group: int = 6
    seed: int = 0
    styles: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    measured_by: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def recognised(self) -> Mapping[str, Float[np.ndarray, " embedding"]]:
        """The recogniser's embedding of each stranger, by identity; empty without a recogniser."""
        recogniser = self.metrics.recogniser
        if recogniser is None:
            return {}
        return {other.identity: recogniser(other.photo[None])[0] for other in self.strangers}

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
            "hypernetwork": digest(weights_of(self.bundle.hypernetwork)),
            "photos of": digest(stranger.photo for stranger in self.strangers),
            "metrics": dict(self.measured_by),
        }
        settle(self.folder, settings)

    def run(self, method: Method, rate: float | None) -> list[Record]:
        """One record for each person; those of an earlier run are read, those of another process waited for."""
        return complete(*self._place(method, rate), partial(self._measure, method, rate))

    def take(self, method: Method, rate: float | None) -> None:
        """Measure who is left, except groups that another process is at."""
        fill(*self._place(method, rate), partial(self._measure, method, rate))

    def _place(self, method: Method, rate: float | None) -> tuple[Path, list[str], int]:
        """The file of a method's records, whom it is for, and how many people are personalized in one batch."""
        file = self.folder / "records" / f"{label(method, rate)}.jsonl"
        return file, [subject.identity for subject in self.chosen], self.group if method.batched else 1

    def _measure(self, method: Method, rate: float | None, part: Sequence[int]) -> Iterator[Record]:
        _ = self.bundle.basis, self.bundle.fingerprint  # computed once, and not part of the seconds of any person
        began = time.perf_counter()
        people = method.run(self.bundle, [self.chosen[index] for index in part], self.seed, rate)
        seconds = (time.perf_counter() - began) / len(part)
        folder = self._place(method, rate)[0].with_suffix("")
        for index, person in zip(part, people, strict=True):
            yield {**self._record(method, index, person, folder), "seconds": round(seconds, 3)}

    def _record(self, method: Method, index: int, person: Personalized, folder: Path) -> Record:
        began = time.perf_counter()
        made = self._draw(method, person, seed=self.seed + 1000 * index)
        count = len(made.plain) + len(made.styled) + len(made.attributes)
        seconds = (time.perf_counter() - began) / count
        subject = self.large[index]
        strangers = [seen for identity, seen in self.recognised.items() if identity != subject.identity]
        numbers = measure(self.metrics, subject, self.chosen[index].photo, strangers, made, self.bundle.class_noun)
        _save_strip(made, folder / f"{index:03}.png")
        return {
            "identity": self.chosen[index].identity,
            "bytes": person.stored_bytes,
            "seconds_per_picture": round(seconds, 4),
            **numbers,
        }

    def _draw(self, method: Method, person: Personalized, *, seed: int) -> Made:
        texts_of = prompts(self.styles, self.attributes, self.bundle.class_noun)
        texts = [texts_of.pop("")] * self.pictures + list(texts_of.values())
        if not method.identifier:
            texts = [text.replace("[V] ", "") for text in texts]
        pictures = draw(person, texts, range(seed, seed + len(texts)))
        named = dict(zip(texts_of, pictures[self.pictures :, None], strict=True))
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
    recogniser = study.metrics.recogniser
    assert recogniser is not None
    again = through_autoencoder(study.bundle, np.stack([subject.photo for subject in study.chosen]))
    cosines = (recogniser(again) * recogniser(np.stack([subject.photo for subject in study.large]))).sum(1)
    return [{"identity": s.identity, "photo": float(c)} for s, c in zip(study.chosen, cosines, strict=True)]


def _save_strip(made: Made, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = [*made.plain, *(p for each in (made.styled, made.attributes) for ps in each.values() for p in ps)]
    Image.fromarray(np.concatenate(pictures, axis=1)).save(file)
