"""Likeness of personalised pictures: cosines with the photo used, with the person's other photos, with other people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from core.hyperdreambooth.adapters import unstack
from core.hyperdreambooth.diffusion import Bundle, decode_latents, encode_pictures, merged, to_pixels
from core.hyperdreambooth.evaluation.recognition import Embeddings
from core.hyperdreambooth.finetune import finetune
from core.hyperdreambooth.lidb import Factors, Person
from core.hyperdreambooth.sampling import Row, merge_people, sample_latents
from core.hyperdreambooth.training.data import Faces

Recognise = Callable[[UInt8[np.ndarray, "n side side 3"]], Embeddings]
"""Aligned pictures to unit embeddings: a ``Recogniser``."""

ACCEPT = 0.36
"""The cosine at which the recogniser of the measurements accepts one pair of strangers in a thousand."""


@dataclass(frozen=True)
class Subject:
    """A person: the photo that is used, and the others."""

    identity: str
    photo: UInt8[np.ndarray, "h w 3"]
    others: UInt8[np.ndarray, "n h w 3"]


@dataclass(frozen=True)
class Likeness:
    """Means over people with the half-width of a 95 % interval; ``accepted`` is the true-accept rate at ACCEPT."""

    photo: tuple[float, float]
    others: tuple[float, float]
    strangers: tuple[float, float]
    accepted: float


def subjects(faces: Faces, people: int) -> list[Subject]:
    """The first ``people`` identities with at least two pictures: the first picture is used, the rest are others."""
    several = [places for places in faces.by_identity.values() if len(places) > 1][:people]
    return [Subject(faces.identities[p[0]], faces.pictures[p[0]], faces.pictures[p[1:]]) for p in several]


def starting_point(bundle: Bundle, chosen: Sequence[Subject], *, seed: int) -> Person:
    """What finetuning starts from, with a leading dimension of people: the hypernetwork's prediction, or zero."""
    if bundle.hypernetwork is None:
        generator = torch.Generator("cpu").manual_seed(seed)
        return bundle.basis.zeros(1, generator=generator, batch=(len(chosen),))
    photos = torch.from_numpy(np.stack([subject.photo for subject in chosen]))
    with torch.inference_mode():
        person: Person = bundle.hypernetwork(to_pixels(photos).to(bundle.device))
    return person


def refine(bundle: Bundle, chosen: Sequence[Subject], start: Person, *, group: int, seed: int) -> Person:
    """Fast finetuning of all subjects, a group in one batch; factors with a leading dimension of people."""
    parts = []
    for first in tqdm(range(0, len(chosen), group), desc="finetuning", unit="group"):
        part = slice(first, first + group)
        photos = torch.from_numpy(np.stack([subject.photo for subject in chosen[part]]))
        with torch.no_grad():
            latents = encode_pictures(bundle, photos)
        person = {name: Factors(f.left[part].clone(), f.right[part].clone()) for name, f in start.items()}
        generator = torch.Generator("cpu").manual_seed(seed)
        config = replace(bundle.config.finetune, steps=bundle.finetuning_steps)
        parts.append(finetune(bundle, latents[:, None], person, config, generator=generator).person)
    return {
        name: Factors(torch.cat([p[name].left for p in parts]), torch.cat([p[name].right for p in parts]))
        for name in parts[0]
    }


def pictures_of(
    bundle: Bundle, person: Person | None, people: int, prompt: str, *, each: int, seed: int
) -> UInt8[np.ndarray, "people each h w 3"]:
    """``each`` pictures of every person (None: of nobody) from one prompt."""
    plain = [merge_people(bundle, [Row("")])[0]] * people
    who = plain if person is None else unstack(merged(bundle, person))
    jobs = [(number, seed + number * each + copy) for number in range(people) for copy in range(each)]
    made: list[Tensor] = []
    limit = bundle.config.sampling.batch
    for first in tqdm(range(0, len(jobs), limit), desc=f"pictures, {prompt}", unit="batch", leave=False):
        part = jobs[first : first + limit]
        rows = [Row(prompt, seed=drawn) for _, drawn in part]
        size = (bundle.resolution, bundle.resolution)
        steps = bundle.config.sampling.steps
        latents = sample_latents(bundle, rows, [who[number] for number, _ in part], steps=steps, size=size)
        with torch.inference_mode():
            made.append(decode_latents(bundle, latents).cpu())
    pictures: np.ndarray = torch.cat(made).unflatten(0, (people, each)).numpy()
    return pictures


def measure(
    recogniser: Recognise, chosen: Sequence[Subject], pictures: UInt8[np.ndarray, "people each h w 3"]
) -> Likeness:
    """Cosines of every person's pictures with the photo, the others, and the photos of the other people."""
    photos = recogniser(np.stack([subject.photo for subject in chosen]))
    made = [recogniser(each) for each in pictures]
    own = np.array([float((e @ photo).mean()) for e, photo in zip(made, photos, strict=True)])
    others = np.array([float((e @ recogniser(s.others).T).mean()) for e, s in zip(made, chosen, strict=True)])
    strangers = np.array([float((e @ np.delete(photos, i, axis=0).T).mean()) for i, e in enumerate(made)])
    accepted = float(np.mean([np.mean(e @ photo > ACCEPT) for e, photo in zip(made, photos, strict=True)]))
    return Likeness(_interval(own), _interval(others), _interval(strangers), accepted)


def ceiling(
    bundle: Bundle, recogniser: Recognise, chosen: Sequence[Subject], reference: Embeddings
) -> tuple[float, float]:
    """What the autoencoder keeps: cosine of its reconstruction with the embedding of the original photo."""
    photos = torch.from_numpy(np.stack([subject.photo for subject in chosen]))
    with torch.inference_mode():
        again = decode_latents(bundle, encode_pictures(bundle, photos)).cpu().numpy()
    return _interval((recogniser(again) * reference).sum(1))


def with_steps(bundle: Bundle, steps: int) -> Bundle:
    """The bundle with another number of finetuning steps."""
    config = replace(bundle.config.finetune, steps=steps, steps_from_zero=steps)
    return replace(bundle, config=replace(bundle.config, finetune=config))


def with_other_guidance(bundle: Bundle) -> Bundle:
    """The bundle with the other choice of whose weights the pass without the prompt carries."""
    sampling = bundle.config.sampling
    other = replace(sampling, unconditional="nobody" if sampling.unconditional == "person" else "person")
    return replace(bundle, config=replace(bundle.config, sampling=other))


def _interval(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    spread = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(np.mean(values)), spread
