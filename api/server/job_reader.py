"""How jobs stand, for many who ask at once: records come from Redis together, without a thread for each.

What Redis does not know any more is read from the store, in a thread: a slow store holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from redis.asyncio import Redis

from core.errors import BrokerUnavailable, JobNotFound
from core.ids import is_id
from core.jobs import pages
from core.jobs.archive import Archive
from core.jobs.ledger import read_standing, script
from core.jobs.pages import Standing
from core.queue.connection import CoalescedScript


class JobReader:
    """Reads records. Raises BrokerUnavailable and StoreUnavailable, both bounded in time."""

    def __init__(self, archive: Archive, connect: Callable[[], Redis]) -> None:
        """`connect` makes a client that decodes to str, and answers or raises within a second."""
        self._archive = archive
        self._look = CoalescedScript(connect, script("look"))

    async def of(self, tenant: str, job_id: str) -> Standing:
        """A job and its position in the queue, as `Jobs.standing` has them. Raises JobNotFound."""
        if is_id(job_id, "job"):
            outage: BrokerUnavailable | None = None
            try:
                found = read_standing(await self._look(f"{tenant}/{job_id}"))
            except BrokerUnavailable as error:
                found, outage = None, error
            found = found or await to_thread.run_sync(pages.stored, self._archive, tenant, outage, job_id)
            if found:
                return found
        raise JobNotFound(f"There is no job {job_id[:40]}.")
