from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from core.batches.records import Batch, ItemState
from core.batches.upload import BatchUpload, UploadLimits
from core.errors import BatchNotFound, BatchOver, InvalidInput, QueueFull, StoreUnavailable, SubjectNotReady
from core.records import MAX_ITEMS, BatchStatus, GenerateRequest, GenerateResult, Image, ItemStatus, JobKind, Subject
from core.storage import keys as store_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.jobs.archive import Accepted
    from core.jobs.claims import Assignment
    from tests.harness import ServiceHarness

GENERATE = JobKind.GENERATE


def upload_of(harness: ServiceHarness, subjects: list[Subject], count: int, tenant: str = "local") -> BatchUpload:
    upload = harness.batches.open_upload(tenant, UploadLimits(5))
    for index in range(count):
        subject = subjects[index % len(subjects)]
        upload.add(GenerateRequest(subject_id=subject.id, prompt=f"secret prompt {index} [V]", seed=index))
    return upload


def send(harness: ServiceHarness, subjects: list[Subject], count: int) -> Batch:
    return upload_of(harness, subjects, count).commit().batch


def feed(harness: ServiceHarness, **options: int) -> None:
    harness.services.scheduler(pass_seconds=60.0, **options).feed()


def counts(harness: ServiceHarness, batch: Batch) -> dict[str, int]:
    return {status.value: count for status, count in state_of(harness, batch).items.counts.items() if count}


def state_of(harness: ServiceHarness, batch: Batch):
    return harness.batches.get(batch.tenant, batch.id)


def items(harness: ServiceHarness, batch: Batch):
    return list(harness.batches.items(state_of(harness, batch), range(batch.total)))


def work(harness: ServiceHarness, most: int = 1000) -> list[str]:
    """Do what waits; gives the jobs in the order in which they were done."""
    done = []
    while len(done) < most and (claimed := harness.claims.claim(GENERATE, "", max_jobs=1, max_rows=100)):
        (assignment,) = claimed
        harness.archive.put_attempt(assignment.job, "0.png", b"png", content_type="image/png")
        image = Image(id=store_keys.image_id(assignment.job.id, 0), seed=0, width=8, height=8)
        assert harness.claims.commit(assignment, GenerateResult(images=(image,)), {"generate": 1.0})
        done.append(assignment.job.id)
    return done


def test_items_are_done_in_their_order_a_window_at_a_time(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject(), harness.ready_subject()], 230)
    assert (batch.parts, counts(harness, batch)) == (3, {"queued": 230})
    done = []
    for _ in range(4):
        feed(harness, window=64)
        assert harness.ledger.queued_items() == {"local": min(64, 230 - len(done))}
        done += work(harness)
    assert done == [batch.job_id(index) for index in range(230)]
    assert done == sorted(done)
    assert [each.status for each in items(harness, batch)] == [ItemStatus.SUCCEEDED] * 230
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 230}
    assert state_of(harness, batch).status is BatchStatus.COMPLETED
    assert not list(harness.store.list("batches/open/"))


def test_what_comes_later_runs_before_the_rest_of_a_batch(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    batch = send(harness, [subject], 10)
    feed(harness)
    first = work(harness, 1)
    later = harness.generation(subject)
    assert harness.ledger.position(later) == 0
    assert work(harness, 2) == [later.id, batch.job_id(1)]
    assert first == [batch.job_id(0)]


def test_the_notification_of_an_item_does_what_is_more_urgent(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    batch = send(harness, [subject], 2)
    feed(harness)
    later = harness.generation(subject)
    (assignment,) = harness.claims.claim(GENERATE, f"local/{batch.job_id(0)}", max_jobs=8, max_rows=100)
    assert assignment.job.id == later.id
    assert len(harness.claims.claim(GENERATE, "", max_jobs=8, max_rows=100)) == 2


def test_a_full_queue_of_items_refuses_no_one(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    send(harness, [subject], 100)
    feed(harness, window=harness.ledger.limits.queue_limit * 2)
    harness.generation(subject)
    assert harness.jobs.queue_lengths() == {"personalize": 0, "generate": 1, "batch": 40, "running": 0}


def test_tenants_have_their_turns(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    batches = sorted(
        (send(harness, [subject], 30) for _ in range(2)), key=lambda batch: batch.id
    )  # may be of one moment
    feed(harness, window=8)
    work(harness, 4)
    feed(harness, window=8)
    assert [state_of(harness, batch).items.states.count(ItemState.WAITING) for batch in batches] == [18, 30]


def test_a_job_that_is_given_back_waits_with_the_items_again(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    batch = send(harness, [subject], 1)
    feed(harness)
    assignment = harness.claim(GENERATE)
    harness.claims.give_back(assignment, counted=True)
    later = harness.generation(subject)
    assert work(harness) == [later.id, batch.job_id(0)]


@pytest.mark.parametrize("killed_after", [0, 1, 5])
@pytest.mark.parametrize("worked", [False, True])
def test_a_scheduler_that_is_killed_is_no_harm(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch, killed_after: int, worked: bool
) -> None:
    batch = send(harness, [harness.ready_subject()], 10)
    admit, admitted = harness.jobs.admit, []

    def die(item: object) -> None:
        if len(admitted) == killed_after:
            raise KeyboardInterrupt
        admitted.append(item)
        admit(item)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.jobs, "admit", die)
    with pytest.raises(KeyboardInterrupt):
        feed(harness)
    monkeypatch.undo()
    done = work(harness) if worked else []
    before = harness.ledger.queued_items()
    feed(harness)
    assert harness.ledger.queued_items() == before  # who died has the turn until it runs out
    harness.locks.release("feeding")
    feed(harness)
    done += work(harness)
    assert sorted(done) == [batch.job_id(index) for index in range(10)]
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 10}


def test_an_item_is_accepted_once_also_when_it_is_admitted_while_it_ends(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 1)
    feed(harness)
    accepted = harness.archive.accepted("local", batch.job_id(0))
    assert accepted
    work(harness)
    harness.jobs.admit(accepted)  # as a scheduler does that has looked before it ended
    assert work(harness) == []
    harness.services.recovery.reconcile()
    assert not list(harness.store.list("pending/"))
    assert harness.jobs.get("local", batch.job_id(0)).state.is_final


def test_redis_comes_back_empty(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = send(harness, [harness.ready_subject()], 150)
    feed(harness, window=20)
    done = work(harness, 5)
    harness.ledger.redis.flushall()
    monkeypatch.setattr("core.jobs.recovery._ACCEPTING_SECONDS", 0.0)
    for _ in range(10):
        feed(harness, window=20)
        harness.services.recovery.reconcile()
        done += work(harness)
    assert sorted(done) == [batch.job_id(index) for index in range(150)]
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 150}


def test_a_store_that_fails_for_one_batch_holds_up_no_other(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = harness.ready_subject()
    first, second = (send(harness, [subject], 2) for _ in range(2))
    get = harness.store.get

    def failing(key: str) -> bytes:
        if first.id in key:
            raise StoreUnavailable
        return get(key)

    monkeypatch.setattr(harness.store, "get", failing)
    feed(harness)
    assert work(harness) == [second.job_id(0), second.job_id(1)]


def test_a_batch_that_cannot_be_read_holds_up_no_other(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    first, second = (send(harness, [subject], 2) for _ in range(2))
    harness.store.put(f"local/batch-items/{first.id}/tally.json", b"{")
    feed(harness)
    assert work(harness) == [second.job_id(0), second.job_id(1)]


def test_erasing_has_its_own_time(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = harness.ready_subject()
    old, new = (send(harness, [subject], 2) for _ in range(2))
    harness.batches.delete("local", old.id)
    admit = harness.jobs.admit

    def slowly(item: Accepted) -> None:
        admit(item)
        time.sleep(0.1)

    monkeypatch.setattr(harness.jobs, "admit", slowly)
    harness.services.scheduler(pass_seconds=0.09).feed()
    assert harness.ledger.queued_items() == {"local": 2}
    assert [key for key in harness.store.objects if old.id in key] == [f"batches/late/local/{old.id}"]
    assert counts(harness, new) == {"queued": 2}


def test_canceling(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 120)
    feed(harness, window=10)
    work(harness, 3)
    running = harness.claim(GENERATE)
    assert harness.batches.cancel("local", batch.id).status is BatchStatus.CANCELING
    feed(harness)
    assert counts(harness, batch) == {"running": 1, "succeeded": 3, "canceled": 116}
    assert not harness.ledger.queued_items()
    harness.claims.cancel(running)
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 3, "canceled": 117}
    assert state_of(harness, batch).status is BatchStatus.CANCELED
    assert [each.status for each in items(harness, batch)[:5]] == ["succeeded"] * 3 + ["canceled"] * 2
    with pytest.raises(BatchOver):
        harness.batches.cancel("local", batch.id)


@pytest.mark.parametrize("over", [False, True])
def test_deleting_a_subject_takes_its_items_out(harness: ServiceHarness, over: bool) -> None:
    gone, stays = harness.ready_subject(), harness.ready_subject()
    batch = send(harness, [gone, stays], 150)
    feed(harness, window=200 if over else 20)
    work(harness, 150 if over else 5)
    feed(harness, window=200 if over else 20)
    harness.subjects.delete("local", gone.id)
    now = items(harness, batch)
    assert {each.status for each in now[:6:2]} == {ItemStatus.FAILED}  # at once, for those that had jobs
    feed(harness, window=200)
    work(harness)
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 75, "failed": 75}
    for each in items(harness, batch)[::2]:
        assert (each.status, each.item.request, each.item.custom_id) == (ItemStatus.FAILED, None, None)
        assert each.error
        assert each.error.code == "subject-not-found"
    left = {key: data for key, data in harness.store.objects.items() if gone.id in key or gone.id.encode() in data}
    assert {key.partition("/")[0] for key in left} <= {"erasures", "erasing"}
    assert not [key for key, data in harness.store.objects.items() if b"secret prompt 0 " in data]


def test_a_subject_that_is_deleted_while_a_batch_is_sent(harness: ServiceHarness) -> None:
    gone, stays = harness.ready_subject(), harness.ready_subject()
    upload = upload_of(harness, [gone, stays], 150)
    harness.subjects.delete("local", gone.id)
    batch = upload.commit().batch
    feed(harness, window=200)
    work(harness)
    feed(harness)
    assert counts(harness, batch) == {"succeeded": 75, "failed": 75}
    assert not [key for key, data in harness.store.objects.items() if b"secret prompt 0 " in data]


def test_a_subject_that_goes_as_its_item_is_admitted(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = harness.ready_subject()
    batch = send(harness, [gone], 2)
    put = harness.archive.put_accepted

    def delete_first(accepted: object) -> None:
        monkeypatch.undo()
        put(accepted)  # type: ignore[arg-type]
        harness.subjects.delete("local", gone.id)

    monkeypatch.setattr(harness.archive, "put_accepted", delete_first)
    feed(harness)
    feed(harness)
    assert counts(harness, batch) == {"failed": 2}
    assert not list(harness.store.list("pending/"))
    assert work(harness) == []


def put_late(harness: ServiceHarness, assignment: Assignment) -> None:
    """As a worker does that had ended its job a moment before it was erased."""
    harness.archive.put_outcome(assignment.job)


def leftovers(harness: ServiceHarness, batch: Batch) -> list[str]:
    numbers = {batch.job_id(index).removeprefix("job_") for index in range(batch.total)}
    return [
        key
        for key, data in harness.store.objects.items()
        if batch.id in key or b"secret prompt" in data or any(number in key for number in numbers)
    ]


@pytest.mark.parametrize("ready", [False, True])
def test_deleting_a_batch_leaves_nothing(harness: ServiceHarness, ready: bool) -> None:
    batch = send(harness, [harness.ready_subject()], 120)
    feed(harness, window=100)
    work(harness, 50)
    running = harness.claim(GENERATE)
    if ready:
        feed(harness)
    harness.batches.delete("local", batch.id)
    with pytest.raises(BatchNotFound):
        state_of(harness, batch)
    feed(harness)
    feed(harness)
    assert not harness.claims.commit(running, GenerateResult(images=()), {})
    assert leftovers(harness, batch) == [f"batches/late/local/{batch.id}"]
    assert work(harness) == []
    put_late(harness, running)
    harness.services.scheduler().drop_old(0)
    assert len(leftovers(harness, batch)) == 2
    harness.services.scheduler(erase_seconds=-1).drop_old(0)
    assert leftovers(harness, batch) == []
    assert not harness.ledger.redis.keys(f"hdb:*{batch.job_id(60)}*")


def test_a_deletion_goes_on_where_it_stopped(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 250)
    harness.batches.delete("local", batch.id)
    for _ in range(20):
        harness.services.scheduler(pass_seconds=0.0005).feed()
        harness.locks.release("feeding")
    feed(harness)
    assert leftovers(harness, batch) == [f"batches/late/local/{batch.id}"]


def test_old_batches_are_deleted(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 2)
    scheduler = harness.services.scheduler()
    scheduler.drop_old(-1)  # it is not over
    feed(harness)
    work(harness)
    feed(harness)
    scheduler.drop_old(3600)
    assert counts(harness, batch) == {"succeeded": 2}
    scheduler.drop_old(-1)
    feed(harness)
    assert leftovers(harness, batch) == [f"batches/late/local/{batch.id}"]


def test_what_was_never_whole_is_taken_away(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_of(harness, [harness.ready_subject()], 150)
    feed(harness)
    assert list(harness.store.list("batches/open/"))
    now = time.time()
    monkeypatch.setattr("core.batches.scheduler.time.time", lambda: now + 3 * 3600)
    feed(harness)
    assert not list(harness.store.list("batches/"))
    assert not list(harness.store.list("local/batch-items/"))


def test_what_is_discarded_leaves_nothing(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    before = dict(harness.store.objects)
    upload_of(harness, [subject], 250).discard()
    assert harness.store.objects == before


def test_a_bad_item_does_not_sink_the_rest(harness: ServiceHarness) -> None:
    subject, (unready, _) = harness.ready_subject(), harness.new_subject()
    upload = upload_of(harness, [unready, subject], 4)
    upload.refuse(InvalidInput("prompt: too long"), (("prompt", "too long"),), line=7, custom_id="x")
    batch = upload.commit().batch
    assert counts(harness, batch) == {"queued": 2, "invalid": 3}
    found = items(harness, batch)
    assert [each.status.value for each in found] == ["invalid", "queued", "invalid", "queued", "invalid"]
    assert [each.error.code for each in found if each.error] == ["subject-not-ready"] * 2 + ["invalid-input"]
    feed(harness)
    assert len(work(harness)) == 2


def test_what_is_wrong_with_an_item_names_no_subject(harness: ServiceHarness) -> None:
    subject, (unready, _) = harness.ready_subject(), harness.new_subject()
    batch = send(harness, [unready, subject], 2)
    error = items(harness, batch)[0].error
    assert error
    assert (error.code, unready.id in error.detail) == ("subject-not-ready", False)


@pytest.mark.parametrize("canceled", [False, True])
def test_webhooks_are_told_once_that_it_is_over(harness: ServiceHarness, canceled: bool) -> None:
    webhooks = harness.services.webhooks
    webhook = webhooks.create(
        "local", "https://example.com/", ("batch.completed", "batch.canceled"), description=None, most=1
    )
    subject = harness.ready_subject()
    batch = send(harness, [subject], 3)
    feed(harness)
    work(harness, 1)
    feed(harness)
    assert not list(harness.store.list("deliveries/"))
    if canceled:
        harness.batches.cancel("local", batch.id)
        feed(harness)
    work(harness)
    feed(harness)
    harness.subjects.delete("local", subject.id)
    feed(harness)
    (key,) = harness.store.list(f"deliveries/local/{webhook.id}/")
    body = json.loads(json.loads(harness.store.get(key))["body"])
    status = "canceled" if canceled else "completed"
    assert (body["type"], body["data"]) == (f"batch.{status}", {"batch_id": batch.id, "status": status})


def test_a_batch_that_is_told_of_again_is_the_same_message(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = harness.services.webhooks
    made = [
        webhooks.create("local", f"https://example.com/{n}", ("batch.completed",), description=None, most=2)
        for n in range(2)
    ]
    send(harness, [harness.ready_subject()], 1)
    feed(harness)
    work(harness)
    put, failures = harness.store.put, [StoreUnavailable("no")]

    def put_but_once(key: str, data: bytes, **more: str) -> None:
        if key.startswith(f"deliveries/local/{max(webhook.id for webhook in made)}") and failures:
            raise failures.pop()
        put(key, data, **more)

    monkeypatch.setattr(harness.store, "put", put_but_once)
    for _ in range(2):
        feed(harness)
    assert not failures
    assert [len(list(harness.store.list(f"deliveries/local/{webhook.id}/"))) for webhook in made] == [1, 1]


def test_maintenance_admits_and_drops(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 2)
    harness.maintenance.tick()
    assert len(work(harness)) == 2
    harness.ledger.redis.delete("hdb:turn:feed")
    harness.maintenance.tick()
    assert counts(harness, batch) == {"succeeded": 2}
    harness.maintenance.batch_kept_days = -1
    harness.ledger.redis.delete("hdb:turn:receipts")
    harness.maintenance.tick()
    with pytest.raises(BatchNotFound):
        state_of(harness, batch)


def test_limits(harness: ServiceHarness) -> None:
    subject, (unready, _) = harness.ready_subject(), harness.new_subject()
    with pytest.raises(InvalidInput, match="at least one"):
        harness.batches.open_upload("local", UploadLimits(5)).commit()
    with pytest.raises(SubjectNotReady):
        upload_of(harness, [unready], 3).commit()
    with pytest.raises(InvalidInput, match="at most 10000"):
        upload_of(harness, [subject], MAX_ITEMS + 1)
    with pytest.raises(QueueFull):
        harness.batches.open_upload("local", UploadLimits(3))
    harness.batches.open_upload("other", UploadLimits(3))


def picked(harness: ServiceHarness, batch: Batch) -> Callable[..., list[int]]:
    return lambda **wanted: harness.batches.pick(state_of(harness, batch), **wanted)


def test_items_can_be_picked(harness: ServiceHarness) -> None:
    batch = send(harness, [harness.ready_subject()], 130)
    feed(harness, window=3)
    work(harness, 2)
    feed(harness, window=1)
    pick = picked(harness, batch)
    assert pick(status=None, start=98, limit=4) == [98, 99, 100, 101]
    assert pick(status=ItemStatus.SUCCEEDED, start=1, limit=9) == [1]
    assert pick(status=ItemStatus.QUEUED, start=0, limit=2) == [2, 3]
    assert pick(status=None, start=500, limit=2) == []
