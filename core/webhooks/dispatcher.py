"""Sends the deliveries that are due. Any number of dispatchers may run; Redis gives each message to one of them.

A message is sent until the receiver answers 2xx, at longer and longer intervals, for 24 hours; then it is given up.
A webhook whose receiver answers 410 (Gone) is disabled. When a dispatcher dies, its messages are due again after a
minute, with the same ids.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio import CapacityLimiter, Event, to_thread
from anyio.abc import TaskGroup
from prometheus_client import Counter, Gauge, Histogram

from core.errors import BrokerUnavailable, HyperDreamBoothError
from core.records import DeliveryState
from core.webhooks.records import Attempt, Delivery, Webhook
from core.webhooks.registry import Webhooks
from core.webhooks.schedule import Due, Schedule
from core.webhooks.sender import Sender
from core.webhooks.signing import headers

MAX_AT_ONCE = 128
"""Messages that are being sent at the same time."""
THREADS = 20
"""Calls of the store and of Redis at the same time."""
SLOW_SECONDS = 2.0
"""An answer that takes longer counts as slow."""
BUSY = (429, 503)
"""What a webhook answers that wants to be left in peace."""
TRIM_EVERY = 25
"""Deliveries that end before the log of a webhook is trimmed again."""
FIRST_WAIT, WAIT_FACTOR, LONGEST_WAIT = 10.0, 3.0, 4 * 3600.0
"""Seconds between attempts: 10, 30, 90, and so on, up to 4 hours; each with a jitter of up to a fifth."""
GIVE_UP_SECONDS = 24 * 3600.0
COOLDOWN_SECONDS = 15.0
"""How long a webhook is sent nothing else when it does not answer, or says that it is busy."""
POLL_SECONDS = 0.5
RECONCILE_SECONDS = 30.0
GONE = 410
USER_AGENT = "HyperDreamBooth-Webhooks/1"

_ATTEMPTS = Counter("hdb_webhook_attempts", "Attempts to send a message, by the answer's status.", ["status"])
_SECONDS = Histogram("hdb_webhook_attempt_seconds", "Seconds that an attempt took.", buckets=(0.1, 0.5, 1, 2.5, 5, 10))
_IN_FLIGHT = Gauge("hdb_webhook_attempts_in_flight", "Attempts that are being made.")
ArgumentsT = TypeVarTuple("ArgumentsT")
AnswerT = TypeVar("AnswerT")
_log = logging.getLogger(__name__)


def wait_before(attempts: int, *, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many attempts, at least one. `jitter` is in [0, 1)."""
    return min(FIRST_WAIT * WAIT_FACTOR ** (attempts - 1), LONGEST_WAIT) * (0.8 + 0.4 * jitter())


def after_attempt(delivery: Delivery, attempt: Attempt, *, jitter: Callable[[], float] = random.random) -> Delivery:
    """The delivery after one more attempt: delivered, given up, or pending with the time of the next attempt."""
    tried = delivery.model_copy(update={"attempts": (*delivery.attempts, attempt), "next_at": None})
    if attempt.status is not None and 200 <= attempt.status < 300:
        return tried.model_copy(update={"state": DeliveryState.DELIVERED})
    ended = attempt.at + attempt.seconds
    next_at = ended + wait_before(len(tried.attempts), jitter=jitter)
    if attempt.status == GONE or next_at > delivery.created_at + GIVE_UP_SECONDS:
        return tried.model_copy(update={"state": DeliveryState.GIVEN_UP})
    return tried.model_copy(update={"next_at": next_at})


class Dispatcher:
    """Sends what is due until it is stopped; no error ends it."""

    def __init__(self, webhooks: Webhooks, schedule: Schedule, sender: Sender) -> None:
        self._webhooks = webhooks
        self._schedule = schedule
        self._sender = sender
        self._threads = CapacityLimiter(THREADS)
        self._in_flight = 0
        self._ended = Event()
        self._untrimmed: dict[str, int] = {}
        self._redis_is_down = False

    async def run(self, stop: Event) -> None:
        """Send what is due until `stop` is set; then finish the attempts in flight, which takes 10 seconds at most."""
        async with anyio.create_task_group() as sending:
            while not stop.is_set():
                self._ended = Event()
                if not await self._poll(sending) and not stop.is_set():
                    with anyio.move_on_after(POLL_SECONDS):
                        await self._ended.wait()

    async def deliver(self, due: Due) -> None:
        """Make one attempt and record it. After an error of ours the message is due again when its lease expires."""
        try:
            await self._deliver(due)
        except HyperDreamBoothError:
            _log.warning("webhook.delivery_deferred", extra={"webhook_id": due.webhook_id}, exc_info=True)
        except Exception:  # noqa: BLE001 - one message's failure must not end the dispatcher
            _log.exception("webhook.delivery_crashed", extra={"webhook_id": due.webhook_id})

    def reconcile(self) -> None:
        """Schedule every pending delivery that is missing in Redis."""
        for due in self._webhooks.undelivered():
            if not self._schedule.has(due):
                delivery = self._webhooks.delivery(*due)
                next_at = delivery.next_at if delivery and delivery.next_at else 0.0
                self._schedule.add(due, delay=max(0.0, next_at - time.time()))

    async def _poll(self, sending: TaskGroup) -> bool:
        """Start sending what is due. False when nothing is due, or as many as allowed are in flight."""
        try:
            if await self._call(self._schedule.acquire_interval, "deliveries", RECONCILE_SECONDS):
                await self._call(self.reconcile)
            free = MAX_AT_ONCE - self._in_flight
            taken = await self._call(self._schedule.take, free) if free else []
            self._redis_is_down = False
        except BrokerUnavailable:
            if not self._redis_is_down:  # logged once an outage
                _log.warning("dispatcher.redis_unavailable")
            self._redis_is_down = True
            return False
        except Exception:  # noqa: BLE001 - what goes wrong now may go right in a moment
            _log.exception("dispatcher.crashed")
            return False
        for due in taken:
            self._in_flight += 1
            sending.start_soon(self._send, due)
        return bool(taken)

    async def _send(self, due: Due) -> None:
        try:
            await self.deliver(due)
        finally:
            self._in_flight -= 1
            self._ended.set()

    async def _deliver(self, due: Due) -> None:
        found = await self._call(self._read, due)
        if found is None:
            return
        webhook, delivery = found
        pause: dict[str, Any] = {}
        if webhook.disabled_at is not None:
            delivery = delivery.model_copy(update={"state": DeliveryState.DROPPED, "next_at": None})
        elif time.time() > delivery.created_at + GIVE_UP_SECONDS + LONGEST_WAIT:  # it waited behind others
            delivery = delivery.model_copy(update={"state": DeliveryState.GIVEN_UP, "next_at": None})
        else:
            attempt = await self._attempt(webhook, delivery)
            delivery = after_attempt(delivery, attempt)
            pause = _next(delivery, attempt)
            if attempt.status == GONE:
                await self._call(self._webhooks.disable, webhook)
        await self._call(self._record, due, delivery, pause)

    def _read(self, due: Due) -> tuple[Webhook, Delivery] | None:
        """The webhook and the message. None when there is nothing to send: what was scheduled is taken away then."""
        webhook = self._webhooks.find(due.tenant, due.webhook_id)
        if webhook is None:
            self._webhooks.delete_deliveries(due.tenant, due.webhook_id)
            return None
        delivery = self._webhooks.delivery(*due)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            self._webhooks.unmark(*due)
            self._schedule.end(due)
            return None
        return webhook, delivery

    async def _attempt(self, webhook: Webhook, delivery: Delivery) -> Attempt:
        body = delivery.body.encode()
        now = time.time()
        signed = headers(webhook.secrets_at(now), delivery.id, int(now), body)
        sent = {"content-type": "application/json", "user-agent": USER_AGENT, **signed}
        with _IN_FLIGHT.track_inprogress():
            attempt = await self._sender.send(webhook.url, sent, body)
        _ATTEMPTS.labels(f"{attempt.status // 100}xx" if attempt.status else "none").inc()
        _SECONDS.observe(attempt.seconds)
        facts = {"webhook_id": webhook.id, "message_id": delivery.id, "attempt": len(delivery.attempts) + 1}
        _log.info("webhook.attempted", extra={**facts, "status": attempt.status, "error": attempt.error})
        return attempt

    def _record(self, due: Due, delivery: Delivery, pause: dict[str, Any]) -> None:
        self._webhooks.put_delivery(delivery)
        if delivery.state is not DeliveryState.PENDING:
            ended = self._untrimmed.get(delivery.webhook_id, 0)
            self._untrimmed[delivery.webhook_id] = (ended + 1) % TRIM_EVERY
            if ended == 0:
                self._webhooks.trim_log(delivery.tenant, delivery.webhook_id)
        if self._webhooks.find(delivery.tenant, delivery.webhook_id) is None:  # it was deleted meanwhile
            self._webhooks.delete_deliveries(delivery.tenant, delivery.webhook_id)
        self._schedule.end(due, **pause)

    async def _call(self, function: Callable[[Unpack[ArgumentsT]], AnswerT], *arguments: *ArgumentsT) -> AnswerT:
        """Call a function that blocks (on the store, on Redis) in a thread."""
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)


def _next(delivery: Delivery, attempt: Attempt) -> dict[str, Any]:
    """The arguments of Schedule.end: when the delivery is due again, if ever, and how its webhook is spared."""
    delivered = delivery.state is DeliveryState.DELIVERED
    in_peace = not delivered and (attempt.status is None or attempt.status in BUSY)
    again = None if delivery.next_at is None else max(0.0, delivery.next_at - time.time())
    return {
        "again": again,
        "cooldown": COOLDOWN_SECONDS if in_peace else 0.0,
        "answer": "quick" if delivered and attempt.seconds <= SLOW_SECONDS else "slow",
    }
