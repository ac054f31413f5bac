"""Records that cannot be read: each kind of object in the store, broken in each way; nothing else suffers."""

from __future__ import annotations

import pytest

from core.batches.upload import UploadLimits
from core.errors import HyperDreamBoothError, ObjectNotFound, StoreUnavailable
from core.jobs.pages import JobFilter
from core.monitoring import ServiceCollector
from core.records import GenerateRequest, Job, JobKind, JobState, Subject
from core.storage import keys
from core.storage.stored import FORMAT, MOST_SET_ASIDE, dump, load
from core.tenants.api_keys import ApiKeys
from core.testing import MemoryStore
from tests.faults.world import do_all_jobs
from tests.harness import ServiceHarness

BROKEN = {
    "empty": b"",
    "cut off": b'{"format":1,"id":"',
    "no text": b"\x00\xff\x80",
    "of another kind": b"[1, 2]",
    "of a wrong type": b'{"format":1,"id":[],"tenant":7,"kind":"what","request":{}}',
}
WITHOUT_RECORDS = ("/job-list/", "/subject-jobs/", "/subject-batches/", "undelivered/", "erasing/", "batches/open/")


def scene(harness: ServiceHarness) -> None:
    """Two of everything, so that one of each can be broken."""
    for name in ("one", "two"):
        harness.services.webhooks.create("local", f"https://{name}.example.com/", None, description=None, most=9)
        ApiKeys(harness.store).create("local", name)
        subject = harness.ready_subject()
        harness.generation(subject)
        do_all_jobs(harness)
        harness.services.packs.create("local", name, ("a [V] face",))
        upload = harness.batches.open_upload("local", UploadLimits(4))
        upload.add(GenerateRequest(subject_id=subject.id, prompt="a [V] face"))
        upload.commit()
        harness.generation(subject)
        harness.new_subject()
    harness.subjects.delete("local", harness.ready_subject().id)


def records(harness: ServiceHarness) -> dict[str, str]:
    """A key of each kind of record."""
    found: dict[str, str] = {}
    for key in harness.store.list(""):
        parts = key.split("/")
        if key.endswith((".json", ".jsonl")) and not any(part in key for part in WITHOUT_RECORDS):
            name = parts[-1] if parts[-1] in ("outcome.json", "tally.json", "000.jsonl") else ""
            found.setdefault(f"{parts[0] if parts[0] in keys.RESERVED else parts[1]} {name}", key)
    return found


def everything_works(harness: ServiceHarness) -> None:
    """Lists, jobs, recovery, webhooks, metrics and deletion, as for a service without the broken record."""
    services = harness.services
    for _ in range(3):
        for name in ("reap", "reconcile", "receipts", "feed", "feeding"):
            services.redis.delete(f"hdb:turn:{name}")
        harness.maintenance.tick()
        do_all_jobs(harness)
    assert services.failures._read() == {}
    assert all(each.job.state.is_final for each in harness.jobs.page("local", JobFilter(), limit=100).jobs)
    assert list(services.webhooks.all("local"))
    for webhook in services.webhooks.all("local"):
        services.webhooks.log("local", webhook.id, limit=100)
    assert list(ApiKeys(harness.store).all())
    assert services.packs.all("local")
    list(ServiceCollector(services).collect())
    new, job = harness.new_subject()
    do_all_jobs(harness)
    assert harness.subjects.get("local", new.id).weights
    assert harness.jobs.get("local", job.id).state is JobState.SUCCEEDED
    for state in harness.batches.page("local", limit=100)[0]:
        harness.batches.items(state, range(state.batch.total))
    for subject in harness.subjects.page("local", limit=100):
        harness.subjects.delete("local", subject.id)
    assert list(harness.subjects.page("local", limit=100)) == []


def test_there_is_a_case_for_each_kind(harness: ServiceHarness) -> None:
    scene(harness)
    found = records(harness)
    assert len(found) >= 9, found


@pytest.mark.parametrize("how", BROKEN)
def test_one_of_each_kind_is_broken_and_nothing_else_suffers(harness: ServiceHarness, how: str) -> None:
    scene(harness)
    for kind in records(harness):
        harness.store.objects.clear()
        harness.ledger.redis.flushall()
        scene(harness)
        key = records(harness)[kind]
        harness.store.objects[key] = BROKEN[how]
        try:
            everything_works(harness)
        except (AssertionError, ValueError, HyperDreamBoothError) as error:
            pytest.fail(f"{key} is {how}: {error!r}")


def test_a_job_whose_request_is_broken_ends_and_its_subject_with_it(harness: ServiceHarness) -> None:
    subject, job = harness.new_subject()
    harness.store.objects[keys.pending("local", job.id)] = b"{"
    harness.ledger.redis.flushall()
    harness.maintenance.tick()
    ended = harness.jobs.get("local", job.id)
    assert ended.error
    assert (ended.state, ended.error.code) == (JobState.FAILED, "internal-fault")
    assert not harness.subjects.get("local", subject.id).is_busy


@pytest.mark.parametrize("what", ["subject.json", "outcome.json"])
def test_what_is_set_aside_is_erased_with_its_subject(harness: ServiceHarness, what: str) -> None:
    subject = harness.ready_subject()
    key = next(key for key in harness.store.list("local/") if key.endswith(what))
    harness.store.objects[key] = b'{"name": "a person\'s name"'
    harness.subjects.page("local", limit=9)
    harness.jobs.page("local", JobFilter(), limit=9)
    harness.ledger.redis.flushall()
    harness.jobs.page("local", JobFilter(), limit=9)
    assert any(keys.is_aside(key) for key in harness.store.list(""))
    harness.subjects.delete("local", subject.id)
    assert not [key for key, data in harness.store.objects.items() if b"name" in data or "unreadable" in key]


def test_a_deletion_stands_although_its_receipt_is_broken(harness: ServiceHarness) -> None:
    subject = harness.ready_subject()
    harness.subjects.delete("local", subject.id)
    harness.store.objects[keys.erasure("local", subject.id)] = b""
    harness.maintenance.tick()
    assert harness.subjects.delete("local", subject.id).subject_id == subject.id
    assert list(harness.store.list(keys.UNREADABLE)) == []


def test_records_have_a_format_and_newer_ones_stay_where_they_are() -> None:
    store = MemoryStore()
    record = Job(
        id="job_1", tenant="local", kind=JobKind.GENERATE, subject_id="sub_1", state=JobState.QUEUED, created_at=1
    )
    for data in (dump(record), record.model_dump_json().encode()):
        store.put("a/b", data)
        assert load(store, "a/b", Job) == record
    newer = dump(record).replace(f'"format":{FORMAT}'.encode(), f'"format":{FORMAT + 1}'.encode())
    store.put("a/b", newer)
    with pytest.raises(StoreUnavailable, match="newer version"):
        load(store, "a/b", Job)
    assert store.objects == {"a/b": newer}


def test_when_hundreds_cannot_be_read_none_is_moved_any_more() -> None:
    store = MemoryStore()
    names = [f"a/{number}" for number in range(MOST_SET_ASIDE + 5)]
    for name in names:
        store.put(name, b"{")
    for name in names[:MOST_SET_ASIDE]:
        with pytest.raises(ObjectNotFound):
            load(store, name, Subject)
    with pytest.raises(StoreUnavailable, match="runbook"):
        load(store, names[-1], Subject)
    assert store.exists(names[-1])


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("how", ["no record", "no hash", "no numbers"])
def test_a_broken_record_in_redis_holds_up_no_other_job(harness: ServiceHarness, state: str, how: str) -> None:
    subject = harness.ready_subject()
    broken, other = harness.generation(subject, seed=1), harness.generation(subject, seed=2)
    if state == "running":
        harness.claim(JobKind.GENERATE, broken.ref)
        harness.let_lease_end(broken)
    name = f"hdb:local:job:{broken.id}"
    if how == "no numbers":
        harness.ledger.redis.hset(name, mapping={"attempt": "many", "fence": "x", "created_at": "never"})
    else:
        harness.ledger.redis.delete(name)
    if how == "no hash":
        harness.ledger.redis.set(name, "x")
    everything_works_for(harness, other)


def everything_works_for(harness: ServiceHarness, other: Job) -> None:
    for _ in range(3):
        harness.ledger.redis.delete("hdb:turn:reap", "hdb:turn:reconcile")
        harness.maintenance.tick()
        do_all_jobs(harness)
    assert harness.jobs.get("local", other.id).state is JobState.SUCCEEDED
    assert len(harness.jobs.page("local", JobFilter(), limit=9).jobs) == 3
    assert harness.subjects.delete("local", other.subject_id)
