from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from api.client import Client, JobFailed, Problem
from core.jobs import JobState


@pytest.fixture
def remote(client) -> Iterator[Client]:
    """The client, speaking to the application in this process."""

    def carry(request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        answer = client.request(request.method, str(request.url), content=request.read(), headers=headers)
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    with Client(transport=httpx.MockTransport(carry), tries=1) as remote:
        yield remote


def test_from_photo_to_pictures(remote, photo, tmp_path, personalized, generated):
    file = tmp_path / "me.png"
    file.write_bytes(photo)
    subject = remote.create_subject(file, consent=True, name="Ada", steps=7)
    personalized(subject.job_id)
    seen = []
    assert remote.wait(subject.job_id, on_progress=seen.append).status is JobState.SUCCEEDED
    assert [job.status for job in seen] == [JobState.SUCCEEDED]
    assert remote.subject(subject.id).weights.bytes == 7
    assert remote.weights(subject.id) == b"refined"
    job = remote.generate(subject.id, "a [V] face", n=2, seed=1)
    generated(job.id)
    images = remote.wait(job.id).images
    assert [image.seed for image in images] == [1, 2]
    assert remote.image(images[0].id)[1:4] == b"PNG"
    assert remote.image(images[0].id, kind="webp")[8:12] == b"WEBP"
    assert [found.id for found in remote.subjects()] == [subject.id]
    assert remote.models()[0].id == "faces-64"
    assert remote.delete_subject(subject.id).job_ids == sorted([subject.job_id, job.id])


def test_progress_is_told_when_it_changes(remote, photo, claim, personalized):
    subject = remote.create_subject([photo], consent=True)
    seen = []

    def look(job):
        seen.append(job.status)
        if len(seen) == 1:
            threading.Timer(0.1, personalized, [subject.job_id]).start()

    remote.wait(subject.job_id, on_progress=look, interval=0.02)
    assert seen[0] is JobState.QUEUED
    assert seen[-1] is JobState.SUCCEEDED
    assert len(seen) <= 4


def test_problems_read_like_sentences(remote, photo):
    with pytest.raises(Problem, match="Input should be 'true'") as caught:
        remote.create_subject(photo, consent=False)
    assert (caught.value.code, caught.value.document.status) == ("invalid-input", 422)
    with pytest.raises(Problem, match="no subject") as caught:
        remote.generate("sub_x", "a [V] face")
    assert caught.value.code == "subject-not-found"


def test_a_job_that_ends_badly_is_an_error(remote, photo):
    job_id = remote.create_subject(photo, consent=True).job_id
    with pytest.raises(TimeoutError):
        remote.wait(job_id, timeout=0.1, on_progress=lambda job: None)
    assert remote.cancel(job_id).status is JobState.CANCELED
    with pytest.raises(JobFailed, match="canceled"):
        remote.wait(job_id)


def answering(*answers: httpx.Response | httpx.TransportError) -> tuple[Client, list[str]]:
    asked: list[str] = []

    def carry(request: httpx.Request) -> httpx.Response:
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(request.method)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    return Client(transport=httpx.MockTransport(carry)), asked


def test_it_tries_again_where_that_is_safe():
    busy = httpx.Response(503, headers={"retry-after": "0"})
    good = httpx.Response(200, json={"models": []})
    client, asked = answering(busy, httpx.ConnectError("no"), good)
    assert client.models() == []
    assert len(asked) == 3
    client, asked = answering(httpx.ReadError("cut off"))
    with pytest.raises(Problem, match="cannot be reached"):
        client.generate("sub_x", "a [V] face")
    assert len(asked) == 1, "it may have been accepted"
    client, asked = answering(busy)
    with pytest.raises(Problem) as caught:
        client.generate("sub_x", "a [V] face")
    assert (len(asked), caught.value.code) == (4, "unexpected-answer")
