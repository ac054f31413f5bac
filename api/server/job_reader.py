"""Reading jobs for many callers at once: many records come from Redis in one round trip, without a thread for each.

What Redis does not know any more is read from the store, in a thread: a slow store holds up no other caller.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from redis.asyncio import Redis

from core.errors import BrokerUnavailable
from core.jobs.ledger import script
from core.jobs.redis_records import QueuedJob, read_queued
from core.jobs.service import JobService
from core.queue.connection import CoalescedScript


class JobReader:
    """Reads records. Raises BrokerUnavailable and StoreUnavailable, both bounded in time."""

    def __init__(self, jobs: JobService, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that decodes to str, and answers or raises within a second."""
        self._jobs = jobs
        self._read = CoalescedScript(connect, script("read"))

    async def read(self, tenant: str, job_id: str) -> QueuedJob:
        """The same as `JobService.get_queued`. Raises JobNotFound."""
        outage: BrokerUnavailable | None = None
        ref = f"{tenant}/{job_id}"
        try:
            found = read_queued(ref, await self._read(ref))
        except BrokerUnavailable as error:
            found, outage = None, error
        if found is None:
            return await to_thread.run_sync(self._jobs.get_stored, tenant, job_id, outage)
        return found
