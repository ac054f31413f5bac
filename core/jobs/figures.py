"""Numbers about all jobs, for monitoring: how many wait and for how long, and how many ended in which way.

hdb:counts     hash: how often things happened, by "what kind detail ...", since Redis was last empty (lua/common.lua)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from redis import Redis

from core.queue.connection import redis_errors

_COUNT = re.compile("[0-9]{1,19}")
"""What HINCRBY counts up to; whatever else the hash says is left out."""

QUEUES = ("personalize", "generate", "batch")


@dataclass(frozen=True)
class Figures:
    """`oldest` has the seconds that the first job of each queue has waited; `counts` the parts of each count's name."""

    queued: dict[str, int]
    oldest: dict[str, float]
    running: int
    counts: dict[tuple[str, ...], int]


def read_figures(redis: Redis) -> Figures:
    """The numbers of this moment, in one round trip. Raises BrokerUnavailable."""
    with redis_errors():
        pipeline = redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.zcard("hdb:running")
        pipeline.hgetall("hdb:counts")
        for name in QUEUES:
            pipeline.zcard(f"hdb:queued:{name}")
            pipeline.zrange(f"hdb:queued:{name}", 0, 0, withscores=True)
        (seconds, micros), running, counts, *queues = pipeline.execute()
    now = seconds + micros / 1e6
    firsts: dict[str, Any] = dict(zip(QUEUES, queues[1::2], strict=True))
    return Figures(
        queued=dict(zip(QUEUES, map(int, queues[0::2]), strict=True)),
        oldest={name: max(0.0, now - first[0][1] / 1000) if first else 0.0 for name, first in firsts.items()},
        running=int(running),
        counts={tuple(name.split(" ")): int(count) for name, count in counts.items() if _COUNT.fullmatch(count)},
    )
