"""Put personal changes into a model and take them out again, exactly.

An adapter is a forward hook on a target's linear layer that adds ``(x right^T) left^T`` to its output. No weight is
written and no module replaced: after the ``with`` block the model is what it was, bit for bit, also after an error.
Factors may carry a batch dimension: then each row of the batch has its own person, and nothing of one reaches another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.hyperdreambooth.lidb import Factors, Person


@contextmanager
def adapted(components: Mapping[str, nn.Module], person: Person) -> Iterator[None]:
    """Run ``components`` with the merged factors of ``person`` (names are ``component.path.to.layer``).

    Factors are ``n x r`` and ``r x m``, or ``rows x n x r`` and ``rows x r x m`` for one person a row; inputs of the
    layers are then ``rows x tokens x m``, and rows beyond those of the factors are nobody's. Targets of components
    that are not given are ignored, so that the text encoder and the UNet can be run one after the other.

    Raises:
        KeyError: a target names a layer that its component does not have.
    """
    handles = []
    try:
        for name, factors in person.items():
            component, _, path = name.partition(".")
            if component in components:
                layer = components[component].get_submodule(path) if path else components[component]
                handles.append(layer.register_forward_hook(_Change(factors)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Change:
    def __init__(self, factors: Factors) -> None:
        self.left_t = factors.left.mT
        self.right_t = factors.right.mT

    def __call__(self, _layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = inputs[0]
        rows = len(self.left_t) if self.left_t.ndim == 3 else len(x)
        change = torch.matmul(torch.matmul(x[:rows], self.right_t.to(x.dtype)), self.left_t.to(x.dtype))
        return output + change if rows == len(x) else torch.cat([output[:rows] + change, output[rows:]])


def stack(people: list[Person]) -> dict[str, Factors]:
    """One batch out of many people's factors of equal or different rank: lower ranks are padded with zeros."""
    stacked = {}
    for name in people[0]:
        rank = max(person[name].left.shape[-1] for person in people)
        left = [nn.functional.pad(p[name].left, (0, rank - p[name].left.shape[-1])) for p in people]
        right = [nn.functional.pad(p[name].right, (0, 0, 0, rank - p[name].right.shape[-2])) for p in people]
        stacked[name] = Factors(torch.stack(left), torch.stack(right))
    return stacked


def unstack(people: Person) -> list[Person]:
    """The people of a batch, one by one."""
    count = len(next(iter(people.values())).left)
    return [{name: Factors(f.left[i], f.right[i]) for name, f in people.items()} for i in range(count)]


def repeat(person: Person, rows: int) -> dict[str, Factors]:
    """Each person of a batch ``rows`` times in a row: ``people x ...`` becomes ``(people rows) x ...``."""
    return {
        name: Factors(f.left.repeat_interleave(rows, 0), f.right.repeat_interleave(rows, 0))
        for name, f in person.items()
    }
