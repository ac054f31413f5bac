from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from core.errors import InternalFault, SettingsError, StoreUnavailable, TooManyWebhooks, WebhookNotFound
from core.ids import derived_id, is_id, new_id, time_of
from core.records import DeliveryState, JobKind, JobState
from core.storage import keys
from core.testing import CIPHER
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.records import MOST_FORMER, Delivery, Webhook
from core.webhooks.registry import KEPT_DELIVERIES, KEPT_SECONDS, Webhooks, drop_old
from core.webhooks.schedule import Schedule

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

URL = "https://hooks.example.com/in?token=s3cret"


@pytest.fixture
def webhooks(harness: ServiceHarness) -> Webhooks:
    return Webhooks(harness.store, harness.ledger.redis, CIPHER)


@pytest.fixture
def schedule(harness: ServiceHarness) -> Schedule:
    return Schedule(harness.ledger.redis)


def make(webhooks: Webhooks, *events: str, tenant: str = "local", most: int = 10) -> Webhook:
    return webhooks.create(tenant, URL, events or None, description=None, most=most)


def types_of(webhooks: Webhooks, webhook: Webhook) -> list[str]:
    return [delivery.type for delivery in reversed(webhooks.log(webhook.tenant, webhook.id, limit=100))]


def bodies(webhooks: Webhooks, webhook: Webhook) -> list[dict[str, object]]:
    log = webhooks.log(webhook.tenant, webhook.id, limit=100)
    return [json.loads(delivery.body) for delivery in reversed(log)]


def test_ids_that_are_made_of_something() -> None:
    at = 1700000000.123
    assert derived_id("msg", at, "a") == derived_id("msg", at, "a") != derived_id("msg", at, "b")
    assert is_id(derived_id("msg", at, "a"), "msg")
    assert time_of(derived_id("msg", at, "a")) == at


def test_what_happens_to_a_subject_is_published(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    subject = harness.ready_subject()
    job = harness.generation(subject)
    assignment = harness.claim(JobKind.GENERATE, job.ref)
    harness.claims.fail(assignment, InternalFault("a face was seen"))
    waiting = harness.generation(subject)
    harness.jobs.cancel("local", waiting.id)
    harness.subjects.delete("local", subject.id)
    assert sorted(types_of(webhooks, webhook)) == [
        "job.canceled",
        "job.failed",
        "job.succeeded",
        "subject.deleted",
        "subject.ready",
    ]
    found = {str(body["type"]): body for body in bodies(webhooks, webhook)}
    assert found["job.failed"]["data"] == {
        "job_id": job.id,
        "subject_id": subject.id,
        "kind": "generate",
        "status": "failed",
    }
    assert found["subject.ready"]["data"] == {"subject_id": subject.id, "job_id": subject.job_id, "status": "ready"}
    assert found["subject.deleted"]["data"] == {"subject_id": subject.id, "status": "deleted"}
    for body in found.values():
        assert set(body) == {"type", "timestamp", "livemode", "data"}
        assert str(body["timestamp"]).endswith("Z")
        assert not {"face", "prompt", "[V]"} & set(json.dumps(body).split())


def test_only_what_was_asked_for_is_told(harness: ServiceHarness, webhooks: Webhooks) -> None:
    some = make(webhooks, "subject.ready", "job.failed")
    elsewhere = make(webhooks, tenant="other")
    disabled = make(webhooks)
    webhooks.disable(disabled)
    harness.ready_subject()
    assert types_of(webhooks, some) == ["subject.ready"]
    assert types_of(webhooks, elsewhere) == types_of(webhooks, disabled) == []


def test_settling_again_publishes_nothing_new(harness: ServiceHarness, webhooks: Webhooks, schedule: Schedule) -> None:
    webhook = make(webhooks, "job.succeeded")
    subject = harness.ready_subject()
    job = harness.jobs.get("local", subject.job_id)
    harness.jobs.settle(job)
    assert len(types_of(webhooks, webhook)) == 1
    (due,) = schedule.take(10)
    (delivery,) = webhooks.log("local", webhook.id, limit=10)
    webhooks.put_delivery(delivery.model_copy(update={"state": DeliveryState.DELIVERED}))
    schedule.end(due)
    harness.jobs.settle(job)
    assert schedule.take(10) == []
    assert list(webhooks.undelivered()) == []


def test_a_worker_that_dies_while_noting_it_loses_nothing(
    harness: ServiceHarness, webhooks: Webhooks, schedule: Schedule
) -> None:
    """At every write of the ending in turn the store goes away; maintenance then finishes what was begun."""
    webhook = make(webhooks, "job.succeeded", "subject.ready")
    put = harness.store.put
    for writes in range(12):
        _, job = harness.new_subject()
        assignment = harness.claim(JobKind.PERSONALIZE, job.ref)
        result = harness.weights_of(assignment)
        left = iter(range(writes))

        def failing(key: str, data: bytes, *, content_type: str = "", left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise StoreUnavailable
            put(key, data, content_type=content_type)

        harness.store.put = failing  # type: ignore[method-assign]
        harness.claims.commit(assignment, result, {})
        harness.store.put = put  # type: ignore[method-assign]
        harness.services.recovery.reconcile()
    assert sorted(types_of(webhooks, webhook)) == ["job.succeeded"] * 12 + ["subject.ready"] * 12
    assert len(list(webhooks.undelivered())) == 24
    assert len({delivery.id for delivery in webhooks.log("local", webhook.id, limit=100)}) == 24


def test_a_deletion_is_published_once_however_often_it_is_finished(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks, "subject.deleted")
    subject = harness.ready_subject()
    harness.subjects.delete("local", subject.id)
    (delivery,) = webhooks.log("local", webhook.id, limit=10)
    webhooks.put_delivery(delivery.model_copy(update={"state": DeliveryState.DELIVERED}))
    harness.store.delete(f"{keys.deliveries('local', webhook.id)}{delivery.id}.json")  # long ago, by its log
    harness.maintenance.finish_erasures()
    harness.subjects.delete("local", subject.id)
    assert types_of(webhooks, webhook) == []


def test_maintenance_publishes_a_deletion_whose_server_died(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks, "subject.deleted")
    subject = harness.ready_subject()
    put = harness.store.put

    def failing(key: str, data: bytes, *, content_type: str = "") -> None:
        if key.startswith("deliveries/"):
            raise StoreUnavailable
        put(key, data, content_type=content_type)

    harness.store.put = failing  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        harness.subjects.delete("local", subject.id)
    harness.store.put = put  # type: ignore[method-assign]
    harness.maintenance.finish_erasures()
    assert types_of(webhooks, webhook) == ["subject.deleted"]


def test_of_a_deleted_subject_only_ids_are_left(harness: ServiceHarness, webhooks: Webhooks) -> None:
    make(webhooks)
    subject = harness.ready_subject()
    harness.generation(subject)
    harness.subjects.delete("local", subject.id)
    left = {key.split("/")[0] for key in harness.store.list("")}
    assert left == {"local", "deliveries", "undelivered", "erasures", "erasing", "usage"}
    for key in harness.store.list(keys.DELIVERIES):
        delivery = Delivery.model_validate_json(harness.store.get(key))
        assert set(json.loads(delivery.body)["data"]) <= {"job_id", "subject_id", "kind", "status"}


def test_without_redis_it_is_noted_in_the_store(harness: ServiceHarness, webhooks: Webhooks) -> None:
    from core.queue.connection import connect
    from core.settings import Settings

    webhook = make(webhooks)
    away = Webhooks(harness.store, connect(Settings(redis_url="redis://127.0.0.1:1/0")), CIPHER)
    away.test(webhook)
    assert [due.webhook_id for due in webhooks.undelivered()] == [webhook.id]


def test_a_tenant_has_only_so_many(webhooks: Webhooks) -> None:
    for _ in range(2):
        make(webhooks, most=2)
    with pytest.raises(TooManyWebhooks, match="2 webhooks"):
        make(webhooks, most=2)
    make(webhooks, tenant="other", most=2)
    assert len(list(webhooks.all("local"))) == 2


def test_those_made_at_once_are_never_too_many(webhooks: Webhooks, harness: ServiceHarness) -> None:
    put = harness.store.put

    def crowded(key: str, data: bytes, *, content_type: str = "") -> None:
        harness.store.put = put  # type: ignore[method-assign]
        make(webhooks, most=1)  # another request is a moment quicker
        put(key, data, content_type=content_type)

    harness.store.put = crowded  # type: ignore[method-assign]
    with pytest.raises(TooManyWebhooks):
        make(webhooks, most=1)
    assert len(list(webhooks.all("local"))) == 1


def test_a_deleted_webhook_leaves_nothing(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    webhooks.test(webhook)
    webhooks.delete("local", webhook.id)
    assert list(harness.store.list("")) == []
    assert harness.ledger.redis.keys("hdb:*") == []
    for gone in (webhook.id, "whk_x", "../x", new_id("whk")):
        with pytest.raises(WebhookNotFound):
            webhooks.get("local", gone)
    with pytest.raises(WebhookNotFound):
        webhooks.get("other", webhook.id)
    webhooks.disable(webhook)
    assert list(harness.store.list("")) == []


def test_old_secrets_count_for_a_while(webhooks: Webhooks) -> None:
    first = make(webhooks)
    second = first.rotated(1000.0, overlap=60.0)
    assert second.secrets_at(1059.0) == [second.secret, first.secret]
    assert second.secrets_at(1060.0) == [second.secret]
    third = second.rotated(1030.0, overlap=10.0)
    assert third.secrets_at(1039.0) == [third.secret, second.secret, first.secret]
    assert third.secrets_at(1041.0) == [third.secret], "older ones count no longer than the one before"
    assert third.rotated(1035.0, overlap=0.0).former == ()
    late = third.rotated(2000.0, overlap=10.0)
    assert [each.secret for each in late.former] == [third.secret], "what is over is forgotten"


def test_there_is_an_end_to_old_secrets(webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    for second in range(2 * MOST_FORMER):
        webhook = webhook.rotated(1000.0 + second, overlap=3600.0)
    assert len(webhook.secrets_at(1010.0)) == 1 + MOST_FORMER


def test_disabling_leaves_a_new_secret_alone(webhooks: Webhooks) -> None:
    before = make(webhooks)
    changed = webhooks.rotate("local", before.id, overlap=60.0)
    webhooks.disable(before)
    assert webhooks.get("local", before.id).secret == changed.secret
    assert webhooks.enable("local", before.id) == changed == webhooks.get("local", before.id)


def test_a_secret_does_not_show(webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    changed = webhook.rotated(0.0, overlap=60.0)
    assert changed.secret not in repr(changed)
    assert webhook.secret not in repr(changed)
    assert webhook.secret not in repr(webhook)
    assert "s3cret" not in repr(webhook)


def test_the_log_has_an_end(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    for number in range(KEPT_DELIVERIES + 5):
        at = time.time() - 1000 + number
        delivery = webhooks.enqueue(webhook, Message("local", WebhookEvent.TEST, at, str(number), {}))
        if number != 2:
            webhooks.put_delivery(delivery.model_copy(update={"state": DeliveryState.GIVEN_UP}))
    webhooks.trim_log("local", webhook.id)
    log = webhooks.log("local", webhook.id, limit=1000)
    assert len(log) == KEPT_DELIVERIES + 1
    assert log[-1].state is DeliveryState.PENDING
    assert [delivery.created_at for delivery in log] == sorted((d.created_at for d in log), reverse=True)
    assert len(webhooks.log("local", webhook.id, limit=7)) == 7


def test_what_is_over_for_long_is_forgotten(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    for hours, state in ((1, "delivered"), (24 * 9, "delivered"), (24 * 9, "pending")):
        at = time.time() - hours * 3600
        delivery = webhooks.enqueue(webhook, Message("local", WebhookEvent.TEST, at, state, {}))
        webhooks.put_delivery(delivery.model_copy(update={"state": DeliveryState(state)}))
    assert KEPT_SECONDS < 24 * 9 * 3600
    drop_old(harness.store)
    assert [d.state for d in webhooks.log("local", webhook.id, limit=9)] == ["delivered", "pending"]


def test_ended_without_a_time_of_its_end(harness: ServiceHarness, webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    _, job = harness.new_subject()
    harness.jobs.settle(job.model_copy(update={"state": JobState.FAILED, "finished_at": None}))
    assert types_of(webhooks, webhook) == ["job.failed"]


def test_secrets_are_stored_encrypted_for_their_webhook_alone(webhooks: Webhooks) -> None:
    first, second = make(webhooks), make(webhooks)
    rotated = webhooks.rotate("local", first.id, overlap=60.0)
    everything = b"".join(webhooks.store.objects.values())  # type: ignore[attr-defined]
    for secret in (first.secret, second.secret, rotated.secret):
        assert secret.encode() not in everything
    assert webhooks.get("local", first.id).secrets_at(0.0) == [rotated.secret, first.secret]
    moved = webhooks.store.get(keys.webhook("local", first.id))
    webhooks.store.put(keys.webhook("local", second.id), moved)
    with pytest.raises(SettingsError, match="cannot be decrypted"):
        webhooks.get("local", second.id)


def test_who_has_no_key_publishes_and_stores_no_webhook(webhooks: Webhooks, harness: ServiceHarness) -> None:
    webhook = make(webhooks)
    publisher = Webhooks(harness.store, harness.ledger.redis)
    assert [
        each.webhook_id for each in publisher.publish(Message("local", WebhookEvent.JOB_FAILED, 1.0, "job", {}))
    ] == [webhook.id]
    with pytest.raises(SettingsError):
        publisher.put(webhook)


def test_secrets_of_an_earlier_version_are_read_and_encrypted_when_they_are_stored_again(webhooks: Webhooks) -> None:
    webhook = make(webhooks)
    key = keys.webhook("local", webhook.id)
    webhooks.store.put(key, webhook.model_dump_json().encode())
    assert webhooks.get("local", webhook.id) == webhook
    webhooks.disable(webhook)
    assert webhook.secret.encode() not in webhooks.store.get(key)
