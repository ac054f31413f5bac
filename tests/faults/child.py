"""`python -m tests.faults.child OPERATION AT REDIS FOLDER SCENE`: does it, and is killed at a write (signal 9)."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

from core.storage import FolderStore
from tests.faults.operations import OPERATIONS, Scene
from tests.faults.process import Clock, Fault
from tests.faults.world import World


def main(name: str, at: str, redis: str, folder: str, scene: str) -> None:
    """Ends by itself only when the operation has fewer writes."""
    world = World(redis, Clock(time.time), FolderStore(Path(folder)))
    before, ids = pickle.loads(Path(scene).read_bytes())
    operation = next(each for each in OPERATIONS if each.name == name)
    operation.act(world.start(Fault.KILLED, int(at))[1], Scene(world, before, ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
