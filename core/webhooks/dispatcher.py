"""Takes what is due and sends it. Any number of couriers may run; Redis gives each message to one of them.

A message is sent until the other side says 2xx, at longer and longer intervals, for 24 hours; then it is given up.
Whoever says 410 (Gone) is told nothing more. When a dispatcher dies, its messages come due again after a minute, with
the same ids.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
from anyio import CapacityLimiter, Event, to_thread
from anyio.abc import TaskGroup

from core.errors import BrokerUnavailable, HyperDreamBoothError
from core.records import DeliveryState
from core.webhooks.messages import Attempt, Delivery
from core.webhooks.registry import Webhook, Webhooks
from core.webhooks.schedule import Due, Schedule
from core.webhooks.sender import Post
from core.webhooks.signing import headers

MAX_AT_ONCE = 16
"""Messages on their way at the same time."""
FIRST_WAIT, WAIT_FACTOR, LONGEST_WAIT = 10.0, 3.0, 4 * 3600.0
"""Seconds between attempts: 10, 30, 90, and so on, up to 4 hours; each a fifth more or less, by chance."""
GIVE_UP_SECONDS = 24 * 3600.0
PEACE_SECONDS = 15.0
"""How long a webhook that failed is sent nothing else."""
LOOK_SECONDS = 0.5
RECONCILE_SECONDS = 30.0
GONE = 410
USER_AGENT = "HyperDreamBooth-Webhooks/1"

ArgumentsT = TypeVarTuple("ArgumentsT")
AnswerT = TypeVar("AnswerT")
_log = logging.getLogger(__name__)


def wait_before(attempts: int, *, chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many attempts, at least one."""
    return min(FIRST_WAIT * WAIT_FACTOR ** (attempts - 1), LONGEST_WAIT) * (0.8 + 0.4 * chance())


def after(delivery: Delivery, attempt: Attempt, *, chance: Callable[[], float] = random.random) -> Delivery:
    """The delivery after one more attempt: over, or with the time of the next one."""
    tried = delivery.model_copy(update={"attempts": (*delivery.attempts, attempt), "next_at": None})
    if attempt.status is not None and 200 <= attempt.status < 300:
        return tried.model_copy(update={"state": DeliveryState.DELIVERED})
    ended = attempt.at + attempt.seconds
    next_at = ended + wait_before(len(tried.attempts), chance=chance)
    if attempt.status == GONE or next_at > delivery.created_at + GIVE_UP_SECONDS:
        return tried.model_copy(update={"state": DeliveryState.GIVEN_UP})
    return tried.model_copy(update={"next_at": next_at})


class Dispatcher:
    """Delivers until it is told to stop; nothing else ends it."""

    def __init__(self, webhooks: Webhooks, schedule: Schedule, post: Post) -> None:
        self._webhooks = webhooks
        self._schedule = schedule
        self._post = post
        self._threads = CapacityLimiter(MAX_AT_ONCE + 4)
        self._on_their_way = 0
        self._redis_away = False

    async def run(self, stop: Event) -> None:
        """Take, send, and look again, until `stop` is set; then end what was begun, which takes 10 seconds at most."""
        async with anyio.create_task_group() as sending:
            while not stop.is_set():
                if not await self._look(sending):
                    with anyio.move_on_after(LOOK_SECONDS):
                        await stop.wait()

    async def deliver(self, due: Due) -> None:
        """One attempt, and what follows from it. What goes wrong here comes due again when its lease ends."""
        try:
            await self._deliver(due)
        except HyperDreamBoothError:
            _log.warning("delivery.put_off", extra={"webhook_id": due.webhook_id}, exc_info=True)
        except Exception:  # noqa: BLE001 - one message's trouble must not end the dispatcher
            _log.exception("delivery.broke", extra={"webhook_id": due.webhook_id})

    def reconcile(self) -> None:
        """Have everything sent that is not over, and that Redis does not know."""
        for due in self._webhooks.undelivered():
            if not self._schedule.knows(due):
                delivery = self._webhooks.delivery(*due)
                next_at = delivery.next_at if delivery and delivery.next_at else 0.0
                self._schedule.add(due, delay=max(0.0, next_at - time.time()))

    async def _look(self, sending: TaskGroup) -> bool:
        """Send what is due. False when there is nothing, or no hand free."""
        try:
            if await self._call(self._schedule.turn, "deliveries", RECONCILE_SECONDS):
                await self._call(self.reconcile)
            free = MAX_AT_ONCE - self._on_their_way
            taken = await self._call(self._schedule.take, free) if free else []
            self._redis_away = False
        except BrokerUnavailable:
            if not self._redis_away:  # said once an outage
                _log.warning("dispatcher.without_redis")
            self._redis_away = True
            return False
        except Exception:  # noqa: BLE001 - what goes wrong now may go right in a moment
            _log.exception("dispatcher.broke")
            return False
        for due in taken:
            self._on_their_way += 1
            sending.start_soon(self._send, due)
        return bool(taken)

    async def _send(self, due: Due) -> None:
        try:
            await self.deliver(due)
        finally:
            self._on_their_way -= 1

    async def _deliver(self, due: Due) -> None:
        webhook = await self._call(self._webhooks.find, due.tenant, due.webhook_id)
        if webhook is None:
            await self._call(self._webhooks.sweep, due.tenant, due.webhook_id)
            return
        delivery = await self._call(self._webhooks.delivery, *due)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            await self._call(self._webhooks.unmark, *due)
            await self._call(self._schedule.end, due)
            return
        pause: dict[str, float] = {}
        if webhook.disabled_at is not None:
            delivery = delivery.model_copy(update={"state": DeliveryState.DROPPED, "next_at": None})
        elif time.time() > delivery.created_at + GIVE_UP_SECONDS + LONGEST_WAIT:  # waited behind others
            delivery = delivery.model_copy(update={"state": DeliveryState.GIVEN_UP, "next_at": None})
        else:
            attempt = await self._attempt(webhook, delivery)
            delivery = after(delivery, attempt)
            pause = _next(delivery)
            if attempt.status == GONE:
                await self._call(self._webhooks.disable, webhook)
        await self._call(self._write_down, delivery)
        await self._call(partial(self._schedule.end, due, **pause))

    async def _attempt(self, webhook: Webhook, delivery: Delivery) -> Attempt:
        body = delivery.body.encode()
        now = time.time()
        signed = headers(webhook.secrets_at(now), delivery.id, int(now), body)
        asked = {"content-type": "application/json", "user-agent": USER_AGENT, **signed}
        attempt = await self._post.send(webhook.url, asked, body)
        facts = {"webhook_id": webhook.id, "message_id": delivery.id, "attempt": len(delivery.attempts) + 1}
        _log.info("delivery.tried", extra={**facts, "status": attempt.status, "error": attempt.error})
        return attempt

    def _write_down(self, delivery: Delivery) -> None:
        self._webhooks.put_delivery(delivery)
        if delivery.state is not DeliveryState.PENDING:
            self._webhooks.shorten_log(delivery.tenant, delivery.webhook_id)
        if self._webhooks.find(delivery.tenant, delivery.webhook_id) is None:  # deleted meanwhile: this goes as well
            self._webhooks.sweep(delivery.tenant, delivery.webhook_id)

    async def _call(self, function: Callable[[Unpack[ArgumentsT]], AnswerT], *arguments: *ArgumentsT) -> AnswerT:
        """What waits (for the store, for Redis) waits in a thread."""
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)


def _next(delivery: Delivery) -> dict[str, float]:
    """When the delivery is due again, if it is, and how long its webhook is left in peace."""
    failed = delivery.state in (DeliveryState.PENDING, DeliveryState.GIVEN_UP)
    peace = PEACE_SECONDS if failed else 0.0
    if delivery.next_at is None:
        return {"peace": peace}
    return {"again": max(0.0, delivery.next_at - time.time()), "peace": peace}
