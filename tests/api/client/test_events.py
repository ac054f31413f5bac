from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hyperdreambooth.client import Problem, Retry
from hyperdreambooth.client.events import EventParser
from hyperdreambooth.schemas import JobStatus
from tests.api.conftest import job_document

AT = '"job_id":"job_1","version":1,"at":"2024-05-04T10:20:30Z","status":"running"'
STREAM = (
    f"\ufeff: hello\nretry: 20\n\n"
    f'id: 1-0\r\nevent: running\r\ndata: {{"type":"running",{AT},\r\ndata: "attempt":1}}\r\n\r\n'
    f"id: 2-0\nevent: progress\ndata:not json\n\n"
    f"event: nothing\n\n"
    f'id: 3-0\ndata: {{"type":"progress",{AT},"attempt":1,"stage":"é"}}\n\n'
    f'id: 4-0\nevent: unheard-of\ndata: {{"type":"unheard-of",{AT},"attempt":1}}\n\n'
    f"id: 5-0\nevent: succeeded\ndata: {{}}"
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_events_are_read_from_any_pieces(size):
    parser = EventParser()
    found = [event for at in range(0, len(STREAM), size) for event in parser.feed(STREAM[at : at + size])]
    assert [(event.id, event.type) for event in found] == [("1-0", "running"), ("3-0", "progress")]
    assert [event.stage for event in found] == [None, "é"]
    assert (parser.pause, parser.last_event_id) == (0.02, "4-0"), "the last event was not whole"


def test_a_new_connection_drops_what_was_not_whole():
    parser = EventParser()
    list(parser.feed(b"id: 1-0\nevent: progress\ndata: {"))
    parser.begin()
    (found,) = parser.feed(event("running", 1))
    assert found.id == "1-0"


def event(name: str, number: int, **data: object) -> bytes:
    data = {
        "type": name,
        "job_id": "job_1",
        "version": number,
        "at": "2024-05-04T10:20:30Z",
        "status": "running",
        "attempt": 1,
        **data,
    }
    return f"id: {number}-0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def job(status: str) -> dict[str, object]:
    attempt = 0 if status == "queued" else 1
    return job_document(id="job_1", status=status, attempt=attempt, stage=None, step=None, total=None)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A connection that breaks after some bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self):
        yield from self._pieces
        raise httpx.ReadError("cut off")

    async def __aiter__(self):
        for piece in self:
            yield piece


class Service:
    """Answers to reads of a job and of its events, in turn."""

    def __init__(self, *streams: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self.streams = list(streams)
        self.statuses = ["queued"]
        self.first: dict[str, object] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not request.url.path.endswith("/events"):
            status = self.statuses.pop(0) if self.statuses else "succeeded"
            answer, self.first = job(status) | self.first, {}
            return httpx.Response(200, json=answer, headers={"etag": f'"{status}"'})
        return self.streams.pop(0)


@pytest.fixture
def ask(connect) -> Callable[[Service], Any]:
    """A client of a service."""
    return lambda service: connect(transport=httpx.MockTransport(service), retry=Retry(tries=1))


def stream(*pieces: bytes, breaks: bool = False) -> httpx.Response:
    content = Broken(b"retry: 1\n\n", *pieces) if breaks else b"retry: 1\n\n" + b"".join(pieces)
    kind = {"content-type": "text/event-stream; charset=utf-8"}
    if isinstance(content, bytes):
        return httpx.Response(200, headers=kind, content=content)
    return httpx.Response(200, headers=kind, stream=content)


def test_a_broken_connection_is_made_anew_without_a_gap(ask):
    service = Service(
        stream(event("running", 1), b"id: 2-0\nevent: pro", breaks=True),
        stream(event("progress", 2, step=1)),
        stream(event("succeeded", 3)),
    )
    assert [event.id for event in ask(service).events("job_1")] == ["1-0", "2-0", "3-0"]
    assert [request.headers.get("last-event-id") for request in service.requests] == [None, "1-0", "2-0"]


def test_it_ends_when_there_is_nothing_after_the_last_event(ask):
    service = Service(httpx.Response(204))
    assert list(ask(service).events("job_1", last_event_id="9-0")) == []
    assert service.requests[0].headers["last-event-id"] == "9-0"


def test_what_is_no_stream_is_a_problem(ask):
    with pytest.raises(Problem, match="not one of this service"):
        list(ask(Service(httpx.Response(200, text="hello"))).events("job_1"))


@pytest.mark.parametrize("with_job", [True, False])
def test_whoever_waits_hears_of_progress(ask, with_job):
    picture = {"id": "img_1", "url": "/v1/images/img_1", "seed": 1, "width": 8, "height": 8}
    service = Service(
        stream(
            event("running", 1, attempt=2),
            event("progress", 2, attempt=2, stage="finetune", step=7, total=40),
            event("preview", 3, attempt=2, stage="finetune", step=8, total=40, preview=picture),
            event("unheard-of", 4),
            event("succeeded", 5, status="succeeded", job=job("succeeded") if with_job else None),
        )
    )
    seen = []
    assert ask(service).wait("job_1", on_progress=seen.append).status is JobStatus.SUCCEEDED
    assert [(each.status.value, each.attempt, each.step) for each in seen[:4]] == [
        ("queued", 0, None),
        ("running", 2, None),
        ("running", 2, 7),
        ("running", 2, 8),
    ]
    assert seen[3].preview.id == "img_1"
    assert seen[-1].status is JobStatus.SUCCEEDED
    assert len(service.requests) == (2 if with_job else 3)


def test_what_was_seen_before_is_not_told_again(ask):
    def progress(number: int, attempt: int, step: int, stage: str = "finetune") -> bytes:
        return event("progress", number, attempt=attempt, stage=stage, step=step, total=40)

    service = Service(
        stream(
            event("queued", 1, status="queued", attempt=0),
            *[event("running", 2), progress(3, 1, 30), event("queued", 4, status="queued")],
            *[event("running", 5, attempt=2), progress(6, 2, 1, "hypernetwork"), progress(7, 2, 3), progress(8, 2, 6)],
            *[progress(9, 2, 7), event("queued", 10, status="queued", attempt=2), event("running", 11, attempt=3)],
            event("succeeded", 12, status="succeeded", job=job("succeeded")),
        )
    )
    service.first = {"status": "running", "attempt": 2, "stage": "finetune", "step": 5, "total": 40}
    seen = []
    ask(service).wait("job_1", on_progress=seen.append)
    assert [(each.status.value, each.attempt, each.step) for each in seen[:-1]] == [
        ("running", 2, 5),
        ("running", 2, 6),
        ("running", 2, 7),
        ("queued", 2, None),
        ("running", 3, None),
    ]


@pytest.mark.parametrize("code", ["not-found", "too-many-followers"])
def test_waiting_polls_where_there_are_no_events(ask, code):
    problem = {"type": "", "title": "", "status": 404, "detail": "", "code": code, "retryable": False}
    refused = httpx.Response(
        404, headers={"content-type": "application/problem+json"}, json={**problem, "request_id": ""}
    )
    service = Service(refused)
    service.statuses = ["queued", "running"]
    seen = []
    ask(service).wait("job_1", on_progress=lambda each: seen.append(each.status.value))
    assert seen == ["queued", "running", "succeeded"]
    assert service.requests[-1].headers["if-none-match"] == '"running"'


def test_whoever_waits_does_without_a_stream_that_something_on_the_way_keeps_to_itself(ask):
    kind = {"content-type": "text/event-stream"}
    service = Service(httpx.Response(200, headers=kind, stream=Broken()))
    service.statuses = ["queued", "running"]
    seen = []
    ask(service).wait("job_1", on_progress=lambda each: seen.append(each.status.value))
    assert seen == ["queued", "running", "succeeded"]


def test_a_stream_that_tells_nothing_does_not_outlast_the_deadline(ask):
    service = Service(*[stream(b": still here\n\n") for _ in range(200)])
    with pytest.raises(TimeoutError, match=r"job_1 is not over after 0\.2 s"):
        ask(service).wait("job_1", on_progress=lambda _: None, timeout=0.2)
