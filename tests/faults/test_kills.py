"""The same with real processes: killed by signal 9 at a write, over a folder on disk."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.ids import Ids
from core.queue.local_redis import LocalRedis
from core.storage import FolderStore
from tests.faults.operations import OPERATIONS, Scene
from tests.faults.process import Clock
from tests.faults.world import World, left_after_all_is_deleted, violations

pytestmark = pytest.mark.process

KILLS = [("delete a subject", 1), ("create a subject", 3), ("commit a generation", 4), ("upload a batch", 4)]


@pytest.mark.parametrize(("name", "at"), KILLS)
def test_a_process_that_is_killed(name: str, at: int, clock: Clock, local_redis: LocalRedis, tmp_path: Path) -> None:
    operation = next(each for each in OPERATIONS if each.name == name)
    world = World(local_redis.url, clock, FolderStore(tmp_path / "store"))
    world.redis.flushall()
    scene = Scene(world, ids=Ids("salt", time.time()))
    operation.prepare(world.start()[1], scene)
    (tmp_path / "scene").write_bytes(pickle.dumps((scene.before, scene.ids)))
    line = [
        sys.executable,
        "-m",
        "tests.faults.child",
        name,
        str(at),
        local_redis.url,
        tmp_path / "store",
        tmp_path / "scene",
    ]
    done = subprocess.run(line, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    if operation.again:
        world.pass_time(10.0)
        operation.again(world.start()[1], scene)
    harness = world.recover()
    assert violations(world, harness) == []
    assert left_after_all_is_deleted(world, harness) == []
