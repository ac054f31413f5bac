from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest
from redis import Redis

from core.errors import BrokerUnavailable, StoreUnavailable
from core.ids import new_id
from core.records import DeliveryState
from core.storage import keys
from core.webhooks.dispatcher import Dispatcher, after_attempt, wait_before
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.records import Attempt, Delivery, Webhook
from core.webhooks.registry import Webhooks
from core.webhooks.schedule import Due, Schedule
from core.webhooks.sender import Sender
from core.webhooks.signing import sign


@dataclass
class FakeSender(Sender):
    """Notes what it was given; answers as it is told to, the last answer again and again."""

    answers: list[int | str | Exception] = field(default_factory=lambda: [200])
    sent: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        self.sent.append((url, headers, body))
        await anyio.sleep(self.seconds.get(url, 0))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            return Attempt(at=time.time(), seconds=0.1, error=answer)
        return Attempt(at=time.time(), seconds=0.1, status=answer)


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def dispatcher(webhooks: Webhooks, schedule: Schedule, sender: FakeSender) -> Dispatcher:
    return Dispatcher(webhooks, schedule, sender)


def make(webhooks: Webhooks, url: str = "https://hooks.example.com/") -> Webhook:
    return webhooks.create("acme", url, None, description=None, most=1000)


def now(webhooks: Webhooks, delivery: Delivery) -> Delivery:
    found = webhooks.delivery(delivery.tenant, delivery.webhook_id, delivery.id)
    assert found
    return found


def deliver(dispatcher: Dispatcher, schedule: Schedule) -> int:
    """Send what is due; how much that was."""
    taken = schedule.take(100)
    for due in taken:
        anyio.run(dispatcher.deliver, due)
    return len(taken)


def let_time_pass(redis: Redis, webhook: Webhook) -> None:
    """As if the next attempt were due."""
    queue = f"hdb:{webhook.tenant}:deliveries:{webhook.id}"
    for message in redis.zrange(queue, 0, -1):
        redis.zadd(queue, {message: 1})
    redis.delete(*(f"hdb:{webhook.tenant}:{kind}:{webhook.id}" for kind in ("sending", "cooling")))
    redis.zadd("hdb:deliveries", {f"{webhook.tenant}/{webhook.id}": 1})


def test_it_is_sent_signed(webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher) -> None:
    webhook = make(webhooks)
    delivery = webhooks.test(webhook)
    assert deliver(dispatcher, schedule) == 1
    ((url, headers, body),) = sender.sent
    assert (url, headers["webhook-id"]) == (webhook.url, delivery.id)
    assert headers["content-type"] == "application/json"
    stamp = int(headers["webhook-timestamp"])
    assert abs(stamp - time.time()) < 60
    assert headers["webhook-signature"] == sign(webhook.secret, delivery.id, stamp, body)
    assert body == delivery.body.encode()
    after_it = now(webhooks, delivery)
    assert (after_it.state, after_it.next_at) == (DeliveryState.DELIVERED, None)
    assert [attempt.status for attempt in after_it.attempts] == [200]
    assert list(webhooks.undelivered()) == []
    assert deliver(dispatcher, schedule) == 0


def test_it_is_signed_with_the_old_secret_as_well(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    old = make(webhooks)
    new = webhooks.rotate("acme", old.id, overlap=60.0)
    delivery = webhooks.test(new)
    deliver(dispatcher, schedule)
    ((_, headers, body),) = sender.sent
    stamp = int(headers["webhook-timestamp"])
    wanted = [sign(secret, delivery.id, stamp, body) for secret in (new.secret, old.secret)]
    assert headers["webhook-signature"].split(" ") == wanted


def test_what_fails_is_sent_again_with_the_same_id(
    redis: Redis, webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    sender.answers = [503, "no connection", 301, 204]
    webhook = make(webhooks)
    delivery = webhooks.test(webhook)
    for attempt in range(1, 4):
        assert deliver(dispatcher, schedule) == 1
        assert deliver(dispatcher, schedule) == 0, "not before its time"
        waiting = now(webhooks, delivery)
        assert waiting.state is DeliveryState.PENDING
        assert len(waiting.attempts) == attempt
        assert waiting.next_at is not None
        assert waiting.next_at > time.time() + 5
        assert len(list(webhooks.undelivered())) == 1
        let_time_pass(redis, webhook)
    assert deliver(dispatcher, schedule) == 1
    done = now(webhooks, delivery)
    assert done.state is DeliveryState.DELIVERED
    assert [(each.status, each.error) for each in done.attempts] == [
        (503, None),
        (None, "no connection"),
        (301, None),
        (204, None),
    ]
    assert {headers["webhook-id"] for _, headers, _ in sender.sent} == {delivery.id}
    assert len({body for _, _, body in sender.sent}) == 1


def test_after_a_day_it_is_given_up(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    sender.answers = [500]
    webhook = make(webhooks)
    delivery = webhooks.enqueue(webhook, Message("acme", WebhookEvent.TEST, time.time() - 24 * 3600, "old", {}))
    deliver(dispatcher, schedule)
    over = now(webhooks, delivery)
    assert (over.state, over.next_at, len(over.attempts)) == (DeliveryState.GIVEN_UP, None, 1)
    assert list(webhooks.undelivered()) == []
    assert webhooks.get("acme", webhook.id).disabled_at is None


def test_what_waited_behind_others_for_days_is_given_up_unsent(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    webhook = make(webhooks)
    old = webhooks.enqueue(webhook, Message("acme", WebhookEvent.TEST, time.time() - 48 * 3600, "old", {}))
    new = webhooks.enqueue(webhook, Message("acme", WebhookEvent.TEST, time.time(), "new", {}))
    deliver(dispatcher, schedule)
    deliver(dispatcher, schedule)  # at once: nothing was sent, so there is no cooldown
    assert (now(webhooks, old).state, now(webhooks, old).attempts) == (DeliveryState.GIVEN_UP, ())
    assert now(webhooks, new).state == DeliveryState.DELIVERED
    assert len(sender.sent) == 1


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_attempts_of_a_day(jitter: float) -> None:
    delivery = Delivery(id="m", tenant="t", webhook_id="w", type="x", body="", created_at=0.0)
    at, times = 0.0, []
    while delivery.state is DeliveryState.PENDING:
        times.append(at)
        delivery = after_attempt(delivery, Attempt(at=at, seconds=0.0, status=500), jitter=lambda: jitter)
        at = delivery.next_at or 0.0
    assert 10 <= len(times) <= 16
    assert 18 * 3600 < times[-1] <= 24 * 3600
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == pytest.approx(sorted(waits))
    assert waits[0] < 15


def test_the_waits_differ_by_chance() -> None:
    assert wait_before(1, jitter=lambda: 0.0) == pytest.approx(8)
    assert wait_before(1, jitter=lambda: 1.0) == pytest.approx(12)
    assert wait_before(3, jitter=lambda: 0.5) == pytest.approx(90)
    assert wait_before(99, jitter=lambda: 0.5) == pytest.approx(4 * 3600)


def test_a_receiver_that_is_gone_is_sent_nothing_more(
    redis: Redis, webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    sender.answers = [410]
    webhook = make(webhooks)
    first, second = webhooks.test(webhook), webhooks.test(webhook)
    for _ in range(3):
        deliver(dispatcher, schedule)
        let_time_pass(redis, webhook)
    assert webhooks.get("acme", webhook.id).disabled_at is not None
    assert sorted(now(webhooks, each).state for each in (first, second)) == ["dropped", "given_up"]
    assert len(sender.sent) == 1
    assert list(webhooks.undelivered()) == []


def test_a_redis_that_comes_back_empty(
    redis: Redis, webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    sender.answers = [500, 200]
    webhook = make(webhooks)
    tried, fresh = webhooks.test(webhook), make(webhooks)
    deliver(dispatcher, schedule)
    untried = webhooks.test(fresh)
    redis.flushall()
    assert deliver(dispatcher, schedule) == 0
    dispatcher.reconcile()
    dispatcher.reconcile()
    assert deliver(dispatcher, schedule) == 1, "what waits for its next attempt still does"
    assert now(webhooks, untried).state is DeliveryState.DELIVERED
    assert schedule.has(Due("acme", webhook.id, tried.id))
    let_time_pass(redis, webhook)
    assert deliver(dispatcher, schedule) == 1
    assert now(webhooks, tried).state is DeliveryState.DELIVERED


def test_a_dispatcher_that_dies_after_sending_sends_again(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    delivery = webhooks.test(make(webhooks))
    put = webhooks.store.put

    def failing(key: str, data: bytes, *, content_type: str = "") -> None:
        raise StoreUnavailable

    webhooks.store.put = failing  # type: ignore[method-assign]
    (due,) = schedule.take(1, lease=0.001)
    anyio.run(dispatcher.deliver, due)
    webhooks.store.put = put  # type: ignore[method-assign]
    time.sleep(0.01)
    assert deliver(dispatcher, schedule) == 1
    assert [headers["webhook-id"] for _, headers, _ in sender.sent] == [delivery.id] * 2
    assert now(webhooks, delivery).state is DeliveryState.DELIVERED


def test_a_mistake_of_ours_ends_nothing(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    sender.answers = [RuntimeError("a mistake"), 200]
    delivery = webhooks.test(make(webhooks))
    (due,) = schedule.take(1, lease=0.001)
    anyio.run(dispatcher.deliver, due)
    assert now(webhooks, delivery).attempts == ()
    time.sleep(0.01)
    assert deliver(dispatcher, schedule) == 1


def test_what_is_over_already_is_not_sent(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    webhook = make(webhooks)
    delivery = webhooks.test(webhook)
    webhooks.put_delivery(delivery.model_copy(update={"state": DeliveryState.DELIVERED}))
    webhooks.store.put(keys.undelivered("acme", webhook.id) + delivery.id, b"")
    assert deliver(dispatcher, schedule) == 1
    assert sender.sent == []
    assert list(webhooks.undelivered()) == []


def test_what_belongs_to_no_webhook_is_swept(
    redis: Redis, webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    webhook = make(webhooks)
    webhooks.delete("acme", webhook.id)
    webhooks.test(webhook)  # a server had read it a moment before
    assert deliver(dispatcher, schedule) == 1
    assert sender.sent == []
    assert list(webhooks.store.list("")) == []
    assert redis.keys("hdb:*") == []


def test_a_webhook_that_is_deleted_while_it_is_sent_to_leaves_nothing(
    webhooks: Webhooks, schedule: Schedule, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    webhook = make(webhooks)
    webhooks.test(webhook)

    async def at_once() -> None:
        (due,) = schedule.take(1)
        async with anyio.create_task_group() as group:
            sender.seconds[webhook.url] = 0.2
            group.start_soon(dispatcher.deliver, due)
            await anyio.sleep(0.1)
            webhooks.delete("acme", webhook.id)

    anyio.run(at_once)
    assert len(sender.sent) == 1
    assert list(webhooks.store.list("")) == []


def run_until(dispatcher: Dispatcher, done: object, *, seconds: float = 20.0) -> float:
    """Run the dispatcher until `done()`; how long that took."""

    async def main() -> float:
        began, stop = time.monotonic(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(dispatcher.run, stop)
            while not done():  # type: ignore[operator]
                assert time.monotonic() - began < seconds
                await anyio.sleep(0.01)
            stop.set()
        return time.monotonic() - began

    return anyio.run(main)


def test_a_slow_one_delays_no_other(webhooks: Webhooks, sender: FakeSender, dispatcher: Dispatcher) -> None:
    slow = make(webhooks, "https://slow.example.com/")
    sender.seconds[slow.url] = 3.0
    for _ in range(30):
        webhooks.test(slow)
    quick = [make(webhooks, f"https://quick{number}.example.com/") for number in range(3)]
    deliveries = [webhooks.test(webhook) for webhook in quick for _ in range(5)]

    def done() -> bool:
        return all(now(webhooks, each).state is DeliveryState.DELIVERED for each in deliveries)

    began = time.monotonic()
    seen = []

    def noted() -> bool:
        if done():
            seen.append(time.monotonic() - began)
        return bool(seen)

    took = run_until(dispatcher, noted)
    assert seen[0] < 2.5
    assert took < 10, "what was begun is ended, and nothing else begun"
    assert sum(url == slow.url for url, _, _ in sender.sent) == 1


def test_only_so_many_at_once(
    webhooks: Webhooks, sender: FakeSender, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.webhooks.dispatcher.MAX_AT_ONCE", 3)
    most, busy = 0, 0
    send = sender.send

    async def counting(url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        await anyio.sleep(0.05)
        busy -= 1
        return await send(url, headers, body)

    sender.send = counting  # type: ignore[method-assign]
    for number in range(10):
        webhooks.test(make(webhooks, f"https://h{number}.example.com/"))
    run_until(dispatcher, lambda: len(sender.sent) == 10)
    assert most == 3


def test_the_dispatcher_outlives_a_redis_that_goes_away(
    webhooks: Webhooks, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    take, troubles = dispatcher._schedule.take, [BrokerUnavailable(), BrokerUnavailable(), RuntimeError("a mistake")]

    def troubled(most: int) -> list[Due]:
        if troubles:
            raise troubles.pop()
        return take(most)

    dispatcher._schedule.take = troubled  # type: ignore[method-assign,assignment]
    webhooks.test(make(webhooks))
    run_until(dispatcher, lambda: sender.sent)


def test_a_dispatcher_puts_in_order_what_redis_lost(
    redis: Redis, webhooks: Webhooks, sender: FakeSender, dispatcher: Dispatcher
) -> None:
    webhooks.test(make(webhooks))
    redis.flushall()
    run_until(dispatcher, lambda: sender.sent)


def test_unknown_messages_of_a_known_webhook(webhooks: Webhooks, schedule: Schedule, dispatcher: Dispatcher) -> None:
    webhook = make(webhooks)
    schedule.add(Due("acme", webhook.id, new_id("msg")))
    assert deliver(dispatcher, schedule) == 1
    assert deliver(dispatcher, schedule) == 0
