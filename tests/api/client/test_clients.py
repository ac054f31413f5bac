"""Both clients, against the application in this process: whatever one does, the other does as well."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import anyio
import httpx
import pytest

from api.server.dependencies import the_resolver
from hyperdreambooth.client import AsyncClient, Client, JobFailed, Problem, Retry
from hyperdreambooth.schemas import ItemStatus, JobKind, JobStatus
from tests.api.conftest import job_document

ONCE = Retry(tries=1)


@pytest.fixture
def remote(connect, address) -> Any:
    """A client, speaking to the application."""
    return connect(address, retry=ONCE)


def test_both_have_the_same_methods():
    def methods(kind):
        return {name: found for name, found in inspect.getmembers(kind, callable) if not name.startswith("_")}

    blocking, other = methods(Client), methods(AsyncClient)
    assert set(blocking) - {"close"} == set(other) - {"aclose"}
    for name in set(blocking) & set(other):
        assert inspect.signature(blocking[name]).parameters == inspect.signature(other[name]).parameters, name


def test_from_photo_to_pictures(remote, photo, tmp_path, personalized, generated):
    file = tmp_path / "me.png"
    file.write_bytes(photo)
    subject = remote.create_subject(file, consent=True, name="Ada", steps=7)
    personalized(subject.job_id)
    seen: list[Any] = []
    assert remote.wait(subject, on_progress=seen.append).status is JobStatus.SUCCEEDED
    assert [job.status for job in seen] == [JobStatus.SUCCEEDED]
    assert remote.subject(subject).weights.bytes == 7
    assert remote.weights(subject.id) == b"refined"
    job = remote.generate(subject, "a [V] face", n=2, seed=1)
    generated(job.id)
    images = remote.wait(job).images
    assert [image.seed for image in images] == [1, 2]
    assert remote.image(images[0])[1:4] == b"PNG"
    assert remote.image(images[0].id, kind="webp")[8:12] == b"WEBP"
    assert [found.id for found in remote.subjects()] == [subject.id]
    assert [found.id for found in remote.jobs()] == [job.id, subject.job_id]
    assert [found.id for found in remote.jobs(kind=JobKind.GENERATE, status=JobStatus.SUCCEEDED, subject=subject)] == [
        job.id
    ]
    assert [event.type for event in remote.events(job)][-1] == "succeeded"
    assert remote.models()[0].id == "faces-128"
    assert remote.usage(days=1).total.pictures == 2
    assert remote.delete_subject(subject).job_ids == sorted([subject.job_id, job.id])


def test_batches(remote, subject_id, services, generated, monkeypatch):
    monkeypatch.setattr("hyperdreambooth.client.waiting.BATCH_INTERVAL", 0.01)
    own = {"subject_id": subject_id, "prompt": "a [V] face", "custom_id": "own", "n": 1}
    batch = remote.create_batch(["a [V] face", "a sketch of a [V] face"], [subject_id], items=[own], n=2, seed=7)
    assert (batch.counts.total, batch.counts.queued) == (3, 3)
    seen = []

    def work(now):
        seen.append(now.counts.succeeded)
        if len(seen) == 1:
            services.scheduler(pass_seconds=60).feed()
            for number in range(3):
                generated(services.batches.get("local", batch.id).batch.job_id(number))
            services.scheduler(pass_seconds=60).feed()

    assert remote.wait_for_batch(batch, on_progress=work, timeout=30).status == "completed"
    assert (seen[0], seen[-1]) == (0, 3)
    results = remote.batch_results(batch.id)
    assert [(item.custom_id, item.seed, len(item.images)) for item in results] == [
        (None, 7, 2),
        (None, 7, 2),
        ("own", 7, 1),
    ]
    assert remote.image(results[0].images[1])[1:4] == b"PNG"
    assert [found.id for found in remote.batches()] == [batch.id]
    assert remote.delete_batch(batch).batch_id == batch.id
    with pytest.raises(Problem, match="no batch"):
        remote.batch(batch)


def test_a_file_of_generations(remote, subject_id, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text(f'{{"subject_id": "{subject_id}", "prompt": "a [V] face"}}\n{{not json\n')
    batch = remote.upload_batch(file)
    assert (batch.counts.queued, batch.counts.invalid) == (1, 1)
    (wrong,) = remote.batch_items(batch, status=ItemStatus.INVALID)
    assert (wrong.line, wrong.error.code) == (2, "malformed-request")
    with pytest.raises(TimeoutError, match=f"{batch.id} is not over"):
        remote.wait_for_batch(batch, timeout=0.05)
    assert remote.cancel_batch(batch).status in ("canceling", "canceled")
    assert remote.upload_batch(file.read_bytes()).id != batch.id


def test_webhooks(remote, client):
    client.app.dependency_overrides[the_resolver] = lambda: lambda name, port: ["93.184.216.34"]
    made = remote.create_webhook("https://example.com/hook", events=["job.succeeded"], description="mine")
    assert made.secret.startswith("whsec_")
    assert [found.id for found in remote.webhooks()] == [made.id]
    assert remote.webhook(made).description == "mine"
    sent = remote.test_webhook(made.id)
    assert (sent.webhook_id, sent.type) == (made.id, "webhook.test")
    assert [each.id for each in remote.deliveries(made, limit=5)] == [sent.id]
    changed = remote.rotate_webhook(made, overlap_hours=1)
    assert changed.secret != made.secret
    assert changed.old_secrets_until is not None
    assert remote.enable_webhook(made).disabled_at is None
    assert remote.delete_webhook(made) is None
    assert remote.webhooks() == []


def test_lists_are_read_to_their_end(remote, client, ledger, photo, monkeypatch):
    monkeypatch.setattr("hyperdreambooth.client.request.PAGE_SIZE", 2)
    ledger.limits = ledger.limits.__class__(queue_limit=10)
    made = [remote.create_subject(photo, consent=True).id for _ in range(5)]
    assert [subject.id for subject in remote.subjects()] == made[::-1]


def test_personalize_waits_and_gives_the_subject_as_it_is_then(remote, photo, personalized):
    def on_progress(job):
        if job.status is JobStatus.QUEUED:
            personalized(job.id)

    subject = remote.personalize([photo, photo], consent=True, on_progress=on_progress, timeout=30)
    assert (subject.status, subject.likeness) == ("ready", 0.5)


def test_more_photos(remote, photo, personalized):
    subject = remote.create_subject(photo, consent=True, keep_photos=True)
    personalized(subject.job_id)
    more = remote.add_photos(subject, [photo, photo], consent=True, steps=5)
    assert (more.id, more.refining, more.photos_sent) == (subject.id, True, 3)
    personalized(more.job_id)
    assert remote.wait(more).id == more.job_id != subject.job_id


def test_progress_is_told_when_it_changes(remote, photo, claim, personalized):
    subject = remote.create_subject([photo], consent=True)
    seen = []

    def on_progress(job):
        seen.append(job.status)
        if len(seen) == 1:
            threading.Timer(0.1, personalized, [subject.job_id]).start()

    remote.wait(subject.job_id, on_progress=on_progress)
    assert seen[0] is JobStatus.QUEUED
    assert seen[-1] is JobStatus.SUCCEEDED


def test_problems_carry_what_the_service_said(remote, photo):
    with pytest.raises(Problem, match="Send true") as caught:
        remote.create_subject(photo, consent=False)
    problem = caught.value
    assert (problem.code, problem.status, problem.field) == ("invalid-input", 422, "consent")
    assert problem.request_id.startswith("req_")
    assert problem.title == "The request cannot be carried out as it stands."
    with pytest.raises(Problem, match="no subject") as caught:
        remote.generate("sub_x", "a [V] face")
    assert caught.value.code == "subject-not-found"
    with pytest.raises(Problem) as caught:
        remote.subject("../jobs")
    assert caught.value.status == 404


def test_a_job_that_ends_badly_is_an_error(remote, photo):
    job_id = remote.create_subject(photo, consent=True).job_id
    with pytest.raises(TimeoutError, match=job_id):
        remote.wait(job_id, timeout=0.1, on_progress=lambda job: None)
    assert remote.cancel(job_id).status is JobStatus.CANCELED
    with pytest.raises(JobFailed, match="canceled") as caught:
        remote.wait(job_id)
    assert caught.value.job.id == job_id


def test_a_key_is_sent():
    seen = []

    def carry(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"models": []})

    Client(api_key="hdb_1_2", transport=httpx.MockTransport(carry)).models()
    assert seen == ["Bearer hdb_1_2"]


def test_a_coroutine_may_listen():
    seen = []

    async def on_progress(job):
        await anyio.lowlevel.checkpoint()
        seen.append(job.status)

    async def run() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=job_document()))
        async with AsyncClient(transport=transport) as remote:
            await remote.wait("job_1", on_progress=on_progress)

    anyio.run(run)
    assert seen == [JobStatus.SUCCEEDED]
