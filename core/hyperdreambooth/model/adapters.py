"""Put low-rank changes into a model and take them out again, exactly.

An adapter is a forward hook on a target that adds ``(x right^T) left^T`` to its output: for a convolution, ``right`` is
a kernel of ``r`` channels and ``left`` mixes them at each place. No weight is written and no module replaced: after the
``with`` block the model is what it was, bit for bit, also after an error.
Factors may carry a batch dimension: then each row of the batch has its own subject, and no row affects another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.hyperdreambooth.model.lidb import Factors, LayerFactors


@contextmanager
def adapted(components: Mapping[str, nn.Module], factors: LayerFactors) -> Iterator[None]:
    """Run ``components`` with merged factors (names are ``component.path.to.layer``).

    Factors are ``n x r`` and ``r x m``, or ``rows x n x r`` and ``rows x r x m`` for one subject a row. Then inputs of
    linear layers are ``rows x tokens x m``, those of convolutions ``rows x channels x h x w``, and rows beyond those of
    the factors are the base model's. Targets of components that are not given are ignored, so that the text encoder and
    the UNet can be run one after the other.

    Raises:
        KeyError: a target names a layer that its component does not have.
    """
    handles = []
    try:
        for name, pair in factors.items():
            component, _, path = name.partition(".")
            if component in components:
                layer = components[component].get_submodule(path) if path else components[component]
                handles.append(layer.register_forward_hook(_Change(pair)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Change:
    """The hook: output + (x right^T) left^T."""

    def __init__(self, factors: Factors) -> None:
        self.factors = factors

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = inputs[0]
        left, right = self.factors.left.to(x.dtype), self.factors.right.to(x.dtype)
        rows = len(left) if left.ndim == 3 else len(x)
        changed = x if rows == len(x) else x[:rows]  # even a slice of everything would be copied by its gradient
        if isinstance(layer, nn.Conv2d):
            change = _convolve(layer, changed, left, right)
        else:
            change = torch.matmul(torch.matmul(changed, right.mT), left.mT)
        return output + change if rows == len(x) else torch.cat([output[:rows] + change, output[rows:]])


def _convolve(layer: nn.Conv2d, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The low-rank convolution of each row with its own kernel.

    Channels are mixed before places are: one matrix product for each row, whose results ``fold`` moves to where the
    kernel puts them and adds up. On a CPU a grouped convolution takes up to three times as long, ``unfold`` five.
    """
    side, padding, stride = layer.kernel_size[0], int(layer.padding[0]), layer.stride[0]
    taps = right.unflatten(-1, (x.shape[1], side * side)).flip(-1).movedim(-1, -2)
    mixed = taps.flatten(-3, -2) @ x.flatten(2)  # rows, rank x side x side, h x w
    height, width = (extent + 2 * padding - side + 1 for extent in x.shape[2:])
    placed = nn.functional.fold(mixed, (height, width), side, padding=side - 1 - padding)
    placed = placed[..., ::stride, ::stride]
    change: Tensor = (left @ placed.flatten(2)).unflatten(2, placed.shape[2:])
    return change


def stack(people: list[LayerFactors]) -> dict[str, Factors]:
    """One batch out of several subjects' factors, of equal or different rank: lower ranks are padded with zeros."""
    stacked = {}
    for name in people[0]:
        rank = max(person[name].left.shape[-1] for person in people)
        left = [nn.functional.pad(p[name].left, (0, rank - p[name].left.shape[-1])) for p in people]
        right = [nn.functional.pad(p[name].right, (0, 0, 0, rank - p[name].right.shape[-2])) for p in people]
        stacked[name] = Factors(torch.stack(left), torch.stack(right))
    return stacked


def unstack(batch: LayerFactors) -> list[LayerFactors]:
    """The factors of each subject of a batch."""
    count = len(next(iter(batch.values())).left)
    return [{name: Factors(f.left[i], f.right[i]) for name, f in batch.items()} for i in range(count)]


def as_batch(factors: LayerFactors) -> dict[str, Factors]:
    """One subject's factors as a batch of one."""
    return {name: Factors(f.left[None], f.right[None]) for name, f in factors.items()}


def repeat(batch: LayerFactors, rows: int) -> dict[str, Factors]:
    """Each subject of a batch ``rows`` times in a row: ``people x ...`` becomes ``(people rows) x ...``."""
    return {
        name: Factors(f.left.repeat_interleave(rows, 0), f.right.repeat_interleave(rows, 0))
        for name, f in batch.items()
    }
