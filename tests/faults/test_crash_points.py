"""Every operation that writes dies at every one of its writes; others go on, and nothing may be lost, twice or left."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count

import pytest

from core.errors import HyperDreamBoothError
from core.ids import Ids
from core.queue.local_redis import LocalRedis
from tests.faults.operations import OPERATIONS, Operation, Scene
from tests.faults.process import Clock, Death, Fault
from tests.faults.world import World, jobs_of, left_after_all_is_deleted, violations

FAULTS = [fault for fault in Fault if fault is not Fault.KILLED]
EVERY = 1 if os.environ.get("FAULT_POINTS") == "all" else 4
"""Every so many-th write of an operation; all of them in `make faults`."""


def strike(url: str, clock: Clock, operation: Operation, fault: Fault, at: int | None) -> tuple[bool, list[str]]:
    """Whether the operation came to that write at all, and what is wrong when all is over."""
    clock.ahead = 0.0
    world = World(url, clock)
    world.redis.flushall()
    scene = Scene(world, ids=Ids("salt", clock()))
    operation.prepare(world.start()[1], scene)
    before = {job.id for job in jobs_of(world.start()[1])}
    process, harness = world.start(fault, at)
    answered = False
    try:
        operation.act(harness, scene)
        answered = True
    except Death:
        pass
    except HyperDreamBoothError:
        assert process.is_faulty or operation.name.startswith("be refused")
    if not process.is_faulty:
        return False, []
    if operation.again and not answered:
        world.pass_time(10.0)
        operation.again(world.start()[1], scene)
    harness = world.recover()
    found = violations(world, harness)
    if operation.again:
        made = {job.id for job in jobs_of(harness)} - before
        found += [f"{made} were made"] if len(made) > 1 else []
    return True, [
        f"{problem} [after {process.writes[-1]}]" for problem in found + left_after_all_is_deleted(world, harness)
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_crash_point(
    operation: Operation, fault: Fault, clock: Clock, local_redis: LocalRedis, record_property: Callable[..., None]
) -> None:
    wrong: list[str] = []
    points = 0
    for at in count(0, EVERY):
        reached, found = strike(local_redis.url, clock, operation, fault, at)
        if not reached:
            break
        points += 1
        wrong += [f"{at}: {problem}" for problem in found]
    record_property("points", points)
    assert points
    assert not wrong, "\n".join(wrong)
