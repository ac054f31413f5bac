from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from core.batches.scheduler import BatchScheduler
from core.batches.service import Batch, Batches, Letter
from core.batches.upload import BatchUpload
from core.errors import BatchNotFound, BatchOver, InvalidInput, QueueFull, StoreUnavailable, SubjectNotReady
from core.ids import time_of
from core.records import MAX_ITEMS, BatchStatus, GenerateRequest, GenerateResult, Image, ItemStatus, JobKind, Subject
from core.storage import keys as store_keys
from core.webhooks.registry import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.jobs.archive import Accepted
    from core.jobs.claims import Assignment
    from tests.harness import Desk

GENERATE = JobKind.GENERATE


def draft_of(desk: Desk, subjects: list[Subject], count: int, tenant: str = "local") -> BatchUpload:
    draft = BatchUpload(desk.jobs, tenant, open_limit=5)
    for index in range(count):
        subject = subjects[index % len(subjects)]
        draft.add(GenerateRequest(subject_id=subject.id, prompt=f"secret prompt {index} [V]", seed=index))
    return draft


def send(desk: Desk, subjects: list[Subject], count: int) -> Batch:
    return draft_of(desk, subjects, count).commit().batch


def feed(desk: Desk, **options: int) -> None:
    BatchScheduler(desk.jobs, pass_seconds=60.0, **options).feed()


def counts(desk: Desk, batch: Batch) -> dict[str, int]:
    return {status.value: count for status, count in standing(desk, batch).tally.counts.items() if count}


def standing(desk: Desk, batch: Batch):
    return Batches(desk.jobs).read(batch.tenant, batch.id)


def items(desk: Desk, batch: Batch):
    return list(Batches(desk.jobs).items(standing(desk, batch), range(batch.total)))


def work(desk: Desk, most: int = 1000) -> list[str]:
    """Do what waits; gives the jobs in the order in which they were done."""
    done = []
    while len(done) < most and (claimed := desk.work.claim(GENERATE, "", max_jobs=1, max_rows=100)):
        (assignment,) = claimed
        key = desk.jobs.archive.put_attempt(assignment.job, "0.png", b"png", content_type="image/png")
        image = Image(id=store_keys.image_id(assignment.job.id, 0), key=key, seed=0, width=8, height=8)
        assert desk.work.commit(assignment, GenerateResult(images=(image,)), {"generate": 1.0})
        done.append(assignment.job.id)
    return done


def test_items_are_done_in_their_order_a_window_at_a_time(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject(), desk.ready_subject()], 230)
    assert (batch.parts, counts(desk, batch)) == (3, {"queued": 230})
    done = []
    for _ in range(4):
        feed(desk, window=64)
        assert desk.ledger.queued_items() == {"local": min(64, 230 - len(done))}
        done += work(desk)
    assert done == [batch.job_id(index) for index in range(230)]
    assert done == sorted(done)
    assert [each.status for each in items(desk, batch)] == [ItemStatus.SUCCEEDED] * 230
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 230}
    assert standing(desk, batch).status is BatchStatus.COMPLETED
    assert not list(desk.store.list("batches/open/"))


def test_what_comes_later_runs_before_the_rest_of_a_batch(desk: Desk) -> None:
    subject = desk.ready_subject()
    batch = send(desk, [subject], 10)
    feed(desk)
    first = work(desk, 1)
    later = desk.generation(subject)
    assert desk.ledger.position(later) == 0
    assert work(desk, 2) == [later.id, batch.job_id(1)]
    assert first == [batch.job_id(0)]


def test_the_bell_of_an_item_does_what_is_more_urgent(desk: Desk) -> None:
    subject = desk.ready_subject()
    batch = send(desk, [subject], 2)
    feed(desk)
    later = desk.generation(subject)
    (assignment,) = desk.work.claim(GENERATE, f"local/{batch.job_id(0)}", max_jobs=8, max_rows=100)
    assert assignment.job.id == later.id
    assert len(desk.work.claim(GENERATE, "", max_jobs=8, max_rows=100)) == 2


def test_a_full_queue_of_items_refuses_nobody(desk: Desk) -> None:
    subject = desk.ready_subject()
    send(desk, [subject], 100)
    feed(desk, window=desk.ledger.limits.queue_limit * 2)
    desk.generation(subject)
    assert desk.jobs.queue_lengths() == {"personalize": 0, "generate": 1, "batch": 40, "running": 0}


def test_tenants_have_their_turns(desk: Desk) -> None:
    subject = desk.ready_subject()
    batches = sorted((send(desk, [subject], 30) for _ in range(2)), key=lambda batch: batch.id)  # may be of one moment
    feed(desk, window=8)
    work(desk, 4)
    feed(desk, window=8)
    assert [standing(desk, batch).tally.letters.count(Letter.WAITING) for batch in batches] == [18, 30]


def test_a_job_that_is_given_back_waits_with_the_items_again(desk: Desk) -> None:
    subject = desk.ready_subject()
    batch = send(desk, [subject], 1)
    feed(desk)
    assignment = desk.claim(GENERATE)
    desk.work.give_back(assignment, counted=True)
    later = desk.generation(subject)
    assert work(desk) == [later.id, batch.job_id(0)]


@pytest.mark.parametrize("killed_after", [0, 1, 5])
@pytest.mark.parametrize("worked", [False, True])
def test_a_feeder_that_is_killed_is_no_harm(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, killed_after: int, worked: bool
) -> None:
    batch = send(desk, [desk.ready_subject()], 10)
    admit, admitted = desk.jobs.admit, []

    def die(item: object) -> None:
        if len(admitted) == killed_after:
            raise KeyboardInterrupt
        admitted.append(item)
        admit(item)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.jobs, "admit", die)
    with pytest.raises(KeyboardInterrupt):
        feed(desk)
    monkeypatch.undo()
    done = work(desk) if worked else []
    before = desk.ledger.queued_items()
    feed(desk)
    assert desk.ledger.queued_items() == before  # who died has the turn until it runs out
    desk.ledger.end_turn("feeding")
    feed(desk)
    done += work(desk)
    assert sorted(done) == [batch.job_id(index) for index in range(10)]
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 10}


def test_an_item_is_accepted_once_also_when_it_is_admitted_while_it_ends(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 1)
    feed(desk)
    accepted = desk.jobs.archive.accepted("local", batch.job_id(0))
    assert accepted
    work(desk)
    desk.jobs.admit(accepted)  # as a scheduler does that has looked before it ended
    assert work(desk) == []
    desk.reaper.reconcile()
    assert not list(desk.store.list("pending/"))
    assert desk.jobs.job("local", batch.job_id(0)).state.is_final


def test_redis_comes_back_empty(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = send(desk, [desk.ready_subject()], 150)
    feed(desk, window=20)
    done = work(desk, 5)
    desk.ledger.redis.flushall()
    monkeypatch.setattr("worker.maintenance.time_of", lambda name: time_of(name) - 3600)
    for _ in range(10):
        feed(desk, window=20)
        desk.reaper.reconcile()
        done += work(desk)
    assert sorted(done) == [batch.job_id(index) for index in range(150)]
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 150}


def test_a_store_that_fails_for_one_batch_holds_up_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = desk.ready_subject()
    first, second = (send(desk, [subject], 2) for _ in range(2))
    get = desk.store.get

    def failing(key: str) -> bytes:
        if first.id in key:
            raise StoreUnavailable
        return get(key)

    monkeypatch.setattr(desk.store, "get", failing)
    feed(desk)
    assert work(desk) == [second.job_id(0), second.job_id(1)]


def test_a_batch_that_cannot_be_read_holds_up_no_other(desk: Desk) -> None:
    subject = desk.ready_subject()
    first, second = (send(desk, [subject], 2) for _ in range(2))
    desk.store.put(f"local/batch-items/{first.id}/tally.json", b"{")
    feed(desk)
    assert work(desk) == [second.job_id(0), second.job_id(1)]


def test_erasing_has_its_own_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = desk.ready_subject()
    old, new = (send(desk, [subject], 2) for _ in range(2))
    Batches(desk.jobs).delete("local", old.id)
    admit = desk.jobs.admit

    def slowly(item: Accepted) -> None:
        admit(item)
        time.sleep(0.1)

    monkeypatch.setattr(desk.jobs, "admit", slowly)
    BatchScheduler(desk.jobs, pass_seconds=0.09).feed()
    assert desk.ledger.queued_items() == {"local": 2}
    assert [key for key in desk.store.objects if old.id in key] == [f"batches/late/local/{old.id}"]
    assert counts(desk, new) == {"queued": 2}


def test_canceling(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 120)
    feed(desk, window=10)
    work(desk, 3)
    running = desk.claim(GENERATE)
    assert Batches(desk.jobs).cancel("local", batch.id).status is BatchStatus.CANCELING
    feed(desk)
    assert counts(desk, batch) == {"running": 1, "succeeded": 3, "canceled": 116}
    assert not desk.ledger.queued_items()
    desk.work.cancel(running)
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 3, "canceled": 117}
    assert standing(desk, batch).status is BatchStatus.CANCELED
    assert [each.status for each in items(desk, batch)[:5]] == ["succeeded"] * 3 + ["canceled"] * 2
    with pytest.raises(BatchOver):
        Batches(desk.jobs).cancel("local", batch.id)


@pytest.mark.parametrize("over", [False, True])
def test_deleting_a_subject_takes_its_items_out(desk: Desk, over: bool) -> None:
    gone, stays = desk.ready_subject(), desk.ready_subject()
    batch = send(desk, [gone, stays], 150)
    feed(desk, window=200 if over else 20)
    work(desk, 150 if over else 5)
    feed(desk, window=200 if over else 20)
    desk.jobs.delete_subject("local", gone.id)
    now = items(desk, batch)
    assert {each.status for each in now[:6:2]} == {ItemStatus.FAILED}  # at once, for those that had jobs
    feed(desk, window=200)
    work(desk)
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 75, "failed": 75}
    for each in items(desk, batch)[::2]:
        assert (each.status, each.item.request, each.item.custom_id) == (ItemStatus.FAILED, None, None)
        assert each.error
        assert each.error.code == "subject-not-found"
    left = {key: data for key, data in desk.store.objects.items() if gone.id in key or gone.id.encode() in data}
    assert {key.partition("/")[0] for key in left} <= {"erasures", "erasing"}
    assert not [key for key, data in desk.store.objects.items() if b"secret prompt 0 " in data]


def test_a_subject_that_is_deleted_while_a_batch_is_sent(desk: Desk) -> None:
    gone, stays = desk.ready_subject(), desk.ready_subject()
    draft = draft_of(desk, [gone, stays], 150)
    desk.jobs.delete_subject("local", gone.id)
    batch = draft.commit().batch
    feed(desk, window=200)
    work(desk)
    feed(desk)
    assert counts(desk, batch) == {"succeeded": 75, "failed": 75}
    assert not [key for key, data in desk.store.objects.items() if b"secret prompt 0 " in data]


def test_a_subject_that_goes_as_its_item_is_admitted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = desk.ready_subject()
    batch = send(desk, [gone], 2)
    put = desk.jobs.archive.put_accepted

    def delete_first(accepted: object) -> None:
        monkeypatch.undo()
        put(accepted)  # type: ignore[arg-type]
        desk.jobs.delete_subject("local", gone.id)

    monkeypatch.setattr(desk.jobs.archive, "put_accepted", delete_first)
    feed(desk)
    feed(desk)
    assert counts(desk, batch) == {"failed": 2}
    assert not list(desk.store.list("pending/"))
    assert work(desk) == []


def put_late(desk: Desk, assignment: Assignment) -> None:
    """As a worker does that had ended its job a moment before it was erased."""
    desk.jobs.archive.put_outcome(assignment.job)


def leftovers(desk: Desk, batch: Batch) -> list[str]:
    numbers = {batch.job_id(index).removeprefix("job_") for index in range(batch.total)}
    return [
        key
        for key, data in desk.store.objects.items()
        if batch.id in key or b"secret prompt" in data or any(number in key for number in numbers)
    ]


@pytest.mark.parametrize("ready", [False, True])
def test_deleting_a_batch_leaves_nothing(desk: Desk, ready: bool) -> None:
    batch = send(desk, [desk.ready_subject()], 120)
    feed(desk, window=100)
    work(desk, 50)
    running = desk.claim(GENERATE)
    if ready:
        feed(desk)
    Batches(desk.jobs).delete("local", batch.id)
    with pytest.raises(BatchNotFound):
        standing(desk, batch)
    feed(desk)
    feed(desk)
    assert not desk.work.commit(running, GenerateResult(images=()), {})
    assert leftovers(desk, batch) == [f"batches/late/local/{batch.id}"]
    assert work(desk) == []
    put_late(desk, running)
    BatchScheduler(desk.jobs).drop_old(0)
    assert len(leftovers(desk, batch)) == 2
    BatchScheduler(desk.jobs, erase_seconds=-1).drop_old(0)
    assert leftovers(desk, batch) == []
    assert not desk.ledger.redis.keys(f"hdb:*{batch.job_id(60)}*")


def test_a_deletion_goes_on_where_it_stopped(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 250)
    Batches(desk.jobs).delete("local", batch.id)
    for _ in range(20):
        BatchScheduler(desk.jobs, pass_seconds=0.0005).feed()
        desk.ledger.end_turn("feeding")
    feed(desk)
    assert leftovers(desk, batch) == [f"batches/late/local/{batch.id}"]


def test_old_batches_are_deleted(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 2)
    scheduler = BatchScheduler(desk.jobs)
    scheduler.drop_old(-1)  # it is not over
    feed(desk)
    work(desk)
    feed(desk)
    scheduler.drop_old(3600)
    assert counts(desk, batch) == {"succeeded": 2}
    scheduler.drop_old(-1)
    feed(desk)
    assert leftovers(desk, batch) == [f"batches/late/local/{batch.id}"]


def test_what_was_never_whole_is_taken_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    draft_of(desk, [desk.ready_subject()], 150)
    feed(desk)
    assert list(desk.store.list("batches/open/"))
    now = time.time()
    monkeypatch.setattr("core.batches.scheduler.time.time", lambda: now + 3 * 3600)
    feed(desk)
    assert not list(desk.store.list("batches/"))
    assert not list(desk.store.list("local/batch-items/"))


def test_what_is_discarded_leaves_nothing(desk: Desk) -> None:
    subject = desk.ready_subject()
    before = dict(desk.store.objects)
    draft_of(desk, [subject], 250).discard()
    assert desk.store.objects == before


def test_a_bad_item_does_not_sink_the_rest(desk: Desk) -> None:
    subject, (unready, _) = desk.ready_subject(), desk.new_subject()
    draft = draft_of(desk, [unready, subject], 4)
    draft.refuse(InvalidInput("prompt: too long"), (("prompt", "too long"),), line=7, custom_id="x")
    batch = draft.commit().batch
    assert counts(desk, batch) == {"queued": 2, "invalid": 3}
    found = items(desk, batch)
    assert [each.status.value for each in found] == ["invalid", "queued", "invalid", "queued", "invalid"]
    assert [each.error.code for each in found if each.error] == ["subject-not-ready"] * 2 + ["invalid-input"]
    feed(desk)
    assert len(work(desk)) == 2


def test_what_is_wrong_with_an_item_names_nobody(desk: Desk) -> None:
    subject, (unready, _) = desk.ready_subject(), desk.new_subject()
    batch = send(desk, [unready, subject], 2)
    error = items(desk, batch)[0].error
    assert error
    assert (error.code, unready.id in error.detail) == ("subject-not-ready", False)


@pytest.mark.parametrize("canceled", [False, True])
def test_webhooks_are_told_once_that_it_is_over(desk: Desk, canceled: bool) -> None:
    webhooks = Webhooks(desk.store, desk.ledger.redis)
    webhook = webhooks.create(
        "local", "https://example.com/", ("batch.completed", "batch.canceled"), description=None, most=1
    )
    subject = desk.ready_subject()
    batch = send(desk, [subject], 3)
    feed(desk)
    work(desk, 1)
    feed(desk)
    assert not list(desk.store.list("deliveries/"))
    if canceled:
        Batches(desk.jobs).cancel("local", batch.id)
        feed(desk)
    work(desk)
    feed(desk)
    desk.jobs.delete_subject("local", subject.id)
    feed(desk)
    (key,) = desk.store.list(f"deliveries/local/{webhook.id}/")
    body = json.loads(json.loads(desk.store.get(key))["body"])
    status = "canceled" if canceled else "completed"
    assert (body["type"], body["data"]) == (f"batch.{status}", {"batch_id": batch.id, "status": status})


def test_a_batch_that_is_told_of_again_is_the_same_message(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = Webhooks(desk.store, desk.ledger.redis)
    made = [
        webhooks.create("local", f"https://example.com/{n}", ("batch.completed",), description=None, most=2)
        for n in range(2)
    ]
    send(desk, [desk.ready_subject()], 1)
    feed(desk)
    work(desk)
    put, failures = desk.store.put, [StoreUnavailable("no")]

    def put_but_once(key: str, data: bytes, **more: str) -> None:
        if key.startswith(f"deliveries/local/{max(webhook.id for webhook in made)}") and failures:
            raise failures.pop()
        put(key, data, **more)

    monkeypatch.setattr(desk.store, "put", put_but_once)
    for _ in range(2):
        feed(desk)
    assert not failures
    assert [len(list(desk.store.list(f"deliveries/local/{webhook.id}/"))) for webhook in made] == [1, 1]


def test_the_reaper_feeds_and_drops(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 2)
    desk.reaper.tick()
    assert len(work(desk)) == 2
    desk.ledger.redis.delete("hdb:turn:feed")
    desk.reaper.tick()
    assert counts(desk, batch) == {"succeeded": 2}
    desk.reaper.batch_kept_days = -1
    desk.ledger.redis.delete("hdb:turn:receipts")
    desk.reaper.tick()
    with pytest.raises(BatchNotFound):
        standing(desk, batch)


def test_limits(desk: Desk) -> None:
    subject, (unready, _) = desk.ready_subject(), desk.new_subject()
    with pytest.raises(InvalidInput, match="at least one"):
        BatchUpload(desk.jobs, "local", open_limit=5).commit()
    with pytest.raises(SubjectNotReady):
        draft_of(desk, [unready], 3).commit()
    with pytest.raises(InvalidInput, match="at most 10000"):
        draft_of(desk, [subject], MAX_ITEMS + 1)
    with pytest.raises(QueueFull):
        BatchUpload(desk.jobs, "local", open_limit=3)
    BatchUpload(desk.jobs, "other", open_limit=3)


def picked(desk: Desk, batch: Batch) -> Callable[..., list[int]]:
    return lambda **wanted: Batches(desk.jobs).pick(standing(desk, batch), **wanted)


def test_items_can_be_picked(desk: Desk) -> None:
    batch = send(desk, [desk.ready_subject()], 130)
    feed(desk, window=3)
    work(desk, 2)
    feed(desk, window=1)
    pick = picked(desk, batch)
    assert pick(status=None, start=98, limit=4) == [98, 99, 100, 101]
    assert pick(status=ItemStatus.SUCCEEDED, start=1, limit=9) == [1]
    assert pick(status=ItemStatus.QUEUED, start=0, limit=2) == [2, 3]
    assert pick(status=None, start=500, limit=2) == []
