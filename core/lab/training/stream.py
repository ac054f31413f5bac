"""Batches out of files that do not fit into memory, the same ones for any number of processes and readers.

A step's batch is cut into *slices* of a few rows, the most that one device takes at a time. Slice ``k`` of every step
reads its own *lane*, the ``k``-th part of the pictures, so that a process and its reader open only what they need.
Every epoch orders the shards anew; within a lane, windows of ``buffer`` pictures are shuffled. What is in a slice is a
function of (seed, step, slice) alone, found by arithmetic: a resumed run reads nothing twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from core.errors import BundleError
from core.hyperdreambooth.faces.photo_words import mirrored
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.hypernetwork import HyperNetwork
from core.hyperdreambooth.model.latents import encode_pictures
from core.hyperdreambooth.model.prompts import tokenize
from core.hyperdreambooth.prediction import face_pixels
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.training.captions import caption
from core.lab.training.data import decode_picture
from core.lab.training.precision import autocast
from core.lab.training.rows import Mix, Rows
from core.lab.training.shards import Photo, Shard
from core.lab.training.warp import warp


@dataclass(frozen=True)
class Plan:
    """What a stream yields: ``slices`` of ``rows`` rows a step, from windows of ``buffer`` pictures."""

    seed: int
    slices: int
    rows: int
    buffer: int
    mix: Mix
    styles: tuple[str, ...]
    resolution: int
    identifier: str
    class_noun: str
    labels: Mapping[str, int]
    warped: int = 0


@dataclass(frozen=True)
class Slice:
    """A few rows before they reach the device; ``faces`` are what the hypernetwork sees, before scaling.

    No tensors: a reader's process that is stopped while its queue pickles one does not end, it aborts.
    """

    pictures: UInt8[np.ndarray, "n h w 3"]
    faces: UInt8[np.ndarray, "n h w 3"]
    texts: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    seen: Int64[np.ndarray, " n"]


class Lane:
    """The endless, shuffled pictures of one slice; picture ``t`` and the window around it are available."""

    def __init__(self, shards: Sequence[Shard], plan: Plan, number: int) -> None:
        self.shards, self.plan, self.number = shards, plan, number
        self.length = sum(shard.rows for shard in shards) // plan.slices
        self._key: tuple[int, int] | None = None
        self._window: list[Photo] = []

    def __getitem__(self, t: int) -> tuple[Photo, list[Photo]]:
        """The ``t``-th picture and the window that it is from."""
        epoch, place = divmod(t, self.length)
        window, place = divmod(place, self.plan.buffer)
        if self._key != (epoch, window):
            start = self.number * self.length + window * self.plan.buffer
            stop = min(start + self.plan.buffer, (self.number + 1) * self.length)
            self._window = list(self._read(epoch, start, stop))
            Random(f"{self.plan.seed}/{epoch}/{self.number}/{window}").shuffle(self._window)
            self._key = epoch, window
        return self._window[place], self._window

    def _read(self, epoch: int, start: int, stop: int) -> Iterator[Photo]:
        """Pictures ``start`` to ``stop`` of all shards, one after the other, in the epoch's order."""
        order = list(self.shards)
        Random(f"{self.plan.seed}/{epoch}").shuffle(order)
        begins = [0, *accumulate(shard.rows for shard in order)]
        for place in range(bisect_right(begins, start) - 1, len(order)):
            if begins[place] >= stop:
                return
            yield from order[place].read(max(start - begins[place], 0), min(stop - begins[place], order[place].rows))


class Stream(IterableDataset[Slice]):
    """The slices of one of ``processes`` processes, from ``step`` on, in the order in which it needs them."""

    def __init__(self, shards: Sequence[Shard], plan: Plan, *, step: int, process: int = 0, processes: int = 1) -> None:
        pictures = sum(shard.rows for shard in shards)
        if pictures < plan.slices:
            raise BundleError(f"{pictures} pictures are too few for {plan.slices} slices a step")
        if plan.slices % processes:
            raise BundleError(f"{processes} processes cannot share {plan.slices} slices a step evenly")
        self.shards, self.plan, self.step = shards, plan, step
        self.process, self.processes = process, processes

    def __iter__(self) -> Iterator[Slice]:
        """The slices of this reader: every n-th of the process's, as the loader collects them from n readers."""
        info = get_worker_info()
        reader, readers = (info.id, info.num_workers) if info is not None else (0, 1)
        mine = self.plan.slices // self.processes
        lanes: dict[int, Lane] = {}
        turn = self.step * mine + reader
        while True:
            step, place = divmod(turn, mine)
            number = self.process + self.processes * place
            lane = lanes.setdefault(number, Lane(self.shards, self.plan, number))
            yield draw_slice(lane, step)
            turn += readers

    def load(self, readers: int) -> Iterator[Slice]:
        """The slices, read ahead by as many processes as share the lanes evenly, ``readers`` at most."""
        mine = self.plan.slices // self.processes
        count = max((n for n in range(1, readers + 1) if mine % n == 0), default=0)
        context = "spawn" if count else None  # the files' readers have threads, which a forked process would lack
        return iter(DataLoader(self, batch_size=None, num_workers=count, multiprocessing_context=context))


def draw_slice(lane: Lane, step: int) -> Slice:
    """The rows of a step from one lane."""
    rows = lane.plan.rows
    drawn = [
        _row(lane, step * rows + row, Random(f"{lane.plan.seed}/{step}/{lane.number}/{row}")) for row in range(rows)
    ]
    pictures, faces, texts, seen = zip(*drawn, strict=True)
    return Slice(
        np.stack(pictures),
        np.stack(faces),
        texts,
        np.array([lane.plan.labels.get(photo.identity, -1) for photo in seen], np.int64),
        np.array([photo.number for photo in seen], np.int64),
    )


@torch.no_grad()
def to_rows(bundle: Bundle, network: HyperNetwork, part: Slice, precision: torch.dtype | None) -> Rows:
    """A slice on the device. The autoencoder runs in float32 unless ``precision`` is bfloat16: float16 overflows."""
    with autocast(bundle.device, precision if precision is torch.bfloat16 else None):
        latents = encode_pictures(bundle, torch.from_numpy(part.pictures))
    faces = face_pixels(bundle, network, torch.from_numpy(part.faces))
    labels, seen = torch.from_numpy(part.labels), torch.from_numpy(part.seen)
    plain = torch.zeros(len(faces), dtype=torch.bool)  # for a teacher, whom there is none of here
    return Rows(latents.float(), tokenize(bundle, part.texts), faces, labels.to(bundle.device), seen, plain)


def _row(lane: Lane, t: int, rng: Random) -> tuple[np.ndarray, np.ndarray, str, Photo]:
    """Picture, face, caption, and whose face the hypernetwork sees: the picture's own or another photo of the person.
    Or both are one synthetic face.

    Another one is searched in the window: files should hold a person's photos one after the other.
    """
    plan, (photo, window) = lane.plan, lane[t]
    empty, plain, flip = rng.random() < plan.mix.empty, rng.random() < plan.mix.photo, rng.random() < 0.5
    same = [other for other in window if other.identity == photo.identity]
    seen = rng.choice(same) if rng.random() < plan.mix.other_photo else photo
    if plan.warped and rng.randrange(1 + plan.warped):
        seen = replace(photo, number=-1, identity="")  # without reference weights or label
        larger = decode_picture(photo.image, 2 * plan.resolution)
        picture = face = _mirrored(warp(larger[None], plan.resolution, seed=rng.getrandbits(62))[0], flip)
    else:
        picture, face = (_mirrored(decode_picture(each.image, plan.resolution), flip) for each in (photo, seen))
    style = PHOTO if plain or not plan.styles else STYLES[rng.choice(plan.styles)]
    words = mirrored(photo.attributes) if flip else photo.attributes
    text = caption(words, style, rng, identifier=plan.identifier, class_noun=plan.class_noun)
    return style.apply(picture[None])[0], face, "" if empty else text, seen


def _mirrored(picture: np.ndarray, flip: bool) -> np.ndarray:
    return np.ascontiguousarray(picture[:, ::-1]) if flip else picture
