"""The process group of a distributed training (Hugging Face accelerate), and the sum of all processes' gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from core.errors import BundleError


class ProcessGroup:
    """This process and its place in the group; without an ``accelerator`` it is the only one."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.index: int = 0 if accelerator is None else accelerator.process_index
        self.size: int = 1 if accelerator is None else accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.index == 0

    def share(self, count: int) -> range:
        """The indices of this process's share of ``count`` pieces of work."""
        return range(self.index, count, self.size)

    def wait(self) -> None:
        """Return when all processes have called this."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes before the others, which find the files that it wrote."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def agree(self, number: int, what: str) -> None:
        """Check that all processes have the same number.

        Raises:
            BundleError: they have not.
        """
        if self.total(torch.tensor([number])).item() != number * self.size:
            raise BundleError(f"the processes do not see the same {what}: give them one folder on a shared disk")

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors; all of them get the same bits."""
        if self._accelerator is None:
            return tensor
        summed: Tensor = self._accelerator.reduce(tensor.to(self._accelerator.device), reduction="sum")
        return summed


SINGLE_PROCESS = ProcessGroup()
"""The only process."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: for a stage that the first of them takes alone, for instance."""


def launched_group() -> ProcessGroup:
    """The group of the processes that ``torchrun`` or ``accelerate launch`` started, on CPUs; else this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SINGLE_PROCESS
    return ProcessGroup(Accelerator(cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]))


class GradientSum:
    """Gradients of the ``parts`` of a step, added so that who adds which first leaves no trace in float32.

    Of two, either may be first; more are added in float64.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: ProcessGroup, parts: int) -> None:
        self.parameters, self.group = list(parameters), group
        self.dtype = torch.float32 if parts <= 2 else torch.float64
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None

    def take(self, values: Mapping[str, Tensor]) -> None:
        """Add the gradients that a part left in the parameters, and its losses; the parameters lose theirs."""
        there = torch.tensor([float(p.grad is not None) for p in self.parameters], dtype=self.dtype)
        numbers = torch.stack([value.detach().cpu().to(self.dtype) for value in values.values()])
        device = self.parameters[0].device
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().to(self.dtype) for p in self.parameters]
        part = torch.cat([*flat, there.to(device), numbers.to(device)])
        self._names, self._sum = tuple(values), part if self._sum is None else self._sum.add_(part)
        for parameter in self.parameters:
            parameter.grad = None

    def give(self) -> dict[str, float]:
        """Put the sum of all processes' gradients into all processes' parameters; returns the sums of the losses.

        A parameter that no part had a gradient for keeps none. One message a step.
        """
        assert self._sum is not None
        sizes = [parameter.numel() for parameter in self.parameters]
        *sums, there, numbers = self.group.total(self._sum).split([*sizes, len(sizes), len(self._names)])
        for parameter, gradient, anybody in zip(self.parameters, sums, there.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if anybody else None
        return dict(zip(self._names, numbers.tolist(), strict=True))
