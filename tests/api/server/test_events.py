"""Following jobs over a real server on loopback, with a real Redis."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.server import event_reader, event_stream
from api.server.app import create_app
from api.server.dependencies import the_photo_checker
from core.jobs.events import event_key, order_of
from core.jobs.ledger import Ledger, Limits, Progress
from core.queue.connection import connect, connect_async
from core.queue.local_redis import LocalRedis
from core.records import Image, Job, JobKind, JobState, Preview
from core.services import make_services
from core.settings import Settings
from core.testing import MemoryNotifier, MemoryStore
from tests.api.conftest import served

SEED = 20240504


@dataclass
class Heard:
    """What came over one or several connections. Only whole events count, as in a browser."""

    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    comments: int = 0
    _rest: str = ""

    def take(self, text: str) -> None:
        *blocks, self._rest = (self._rest + text).split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            self.comments += block.startswith(":")
            if "data" in fields:
                self.events.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))

    def cut_off(self) -> None:
        self._rest = ""

    @property
    def last_id(self) -> str:
        return next((name for name, _, _ in reversed(self.events) if name), "")

    @property
    def types(self) -> list[str]:
        return [kind for _, kind, _ in self.events]

    @property
    def versions(self) -> list[int]:
        return [data["version"] for _, _, data in self.events]


@pytest.fixture
def app(settings, services, finder):
    app = create_app(settings, services=services)
    app.dependency_overrides[the_photo_checker] = lambda: finder
    return app


@pytest.fixture
def http(app) -> Iterator[httpx.Client]:
    with served(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def job(http, photo, services) -> Job:
    made = http.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    return services.jobs.get("local", made["job_id"])


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def listen(
    http: httpx.Client, job: Job, heard: Heard, *, stop: Callable[[], bool] = lambda: False, most: int = 1 << 30
):
    """Follow until the server ends the stream, `stop` says so, or so many bytes have come."""
    headers = {"last-event-id": heard.last_id} if heard.last_id else {}
    with http.stream("GET", f"/v1/jobs/{job.id}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        taken = 0
        for chunk in answer.iter_bytes():
            heard.take(chunk[: most - taken].decode())
            taken += len(chunk)
            if taken >= most or stop():
                break
    heard.cut_off()


def followed(http: httpx.Client, job: Job, **how: Any) -> Heard:
    heard = Heard()
    listen(http, job, heard, **how)
    return heard


def work(held, steps: int, pause: float) -> None:
    for step in range(1, steps + 1):
        held.at("finetune", step, steps)
        time.sleep(pause)
    held.services.claims.fail(held.assignment, event_stream.JobNotFound("over"))


def test_a_hundred_disconnects_leave_no_gap_and_no_double(http, job, claim, services):
    dice, heard, steps = random.Random(SEED), Heard(), 150
    worker = threading.Thread(target=work, args=(claim(job.id), steps, 0.05))
    worker.start()
    for _ in range(100):
        listen(http, job, heard, most=dice.choice([1, 40, 200, 300, 400, 600]))
        assert heard.types[-1:] != ["failed"], "that was not a hundred"
    listen(http, job, heard)
    worker.join()
    assert heard.versions == list(range(1, steps + 4))
    assert heard.types == ["queued", "running", *["progress"] * steps, "failed"]
    ids = [order_of(name) for name, _, _ in heard.events]
    assert ids == sorted(set(ids))
    assert [name for name, _, _ in heard.events] == [name for name, _ in services.redis.xrange(event_key(job.ref))]
    assert [data["step"] for _, kind, data in heard.events if kind == "progress"] == list(range(1, steps + 1))


def test_the_last_event_brings_the_job_and_ends_the_stream(http, job, personalized):
    personalized(job.id)
    heard = followed(http, job)
    assert heard.types == ["queued", "running", "succeeded"]
    _, _, data = heard.events[-1]
    assert data["job"] == {k: v for k, v in http.get(f"/v1/jobs/{job.id}").json().items() if v is not None} | {
        "links": data["job"]["links"]
    }
    assert data["job"]["seconds"] == {"finetune": 1.5}
    again = http.get(f"/v1/jobs/{job.id}/events", headers={"last-event-id": heard.last_id})
    assert (again.status_code, again.content) == (204, b"")


def test_events_come_as_they_happen(http, job, claim, services, ledger):
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.types == ["queued"])
    held = claim(job.id)
    until(lambda: heard.types[-1] == "running", seconds=1.5)
    held.keep("0.png", b"png")
    image = Image(id=f"img_{job.id.removeprefix('job_')}-0", seed=3, width=8, height=8)
    ledger.preview(held.assignment.claim, Preview(image=image))
    until(lambda: heard.types[-1] == "preview", seconds=1.5)
    assert heard.events[-1][2]["preview"]["url"] == f"/v1/images/{image.id}"
    services.jobs.cancel("local", job.id)
    until(lambda: heard.types[-1] == "cancel_requested", seconds=1.5)
    held.services.claims.cancel(held.assignment)
    follower.join()
    assert heard.types[-1] == "canceled"


@pytest.mark.parametrize("redis", ["stream gone", "empty"])
def test_what_is_over_is_told_once_when_its_events_have_expired(http, job, personalized, services, redis):
    personalized(job.id)
    names = [name for name, _ in services.redis.xrange(event_key(job.ref))]
    _ = services.redis.flushall() if redis == "empty" else services.redis.delete(event_key(job.ref))
    heard = followed(http, job)
    assert [(name, kind) for name, kind, _ in heard.events] == [(names[-1], "succeeded")]
    assert heard.events[0][2]["job"]["status"] == "succeeded"
    late = Heard([(names[0], "queued", {"version": 1})])
    listen(http, job, late)
    assert late.types == ["queued", "succeeded"]
    again = http.get(f"/v1/jobs/{job.id}/events", headers={"last-event-id": names[-1]})
    assert again.status_code == 204


def test_what_waits_so_long_that_its_events_have_expired_is_told_how_it_stands(http, job, services):
    services.redis.delete(event_key(job.ref))
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.types == ["queued"])
    services.jobs.cancel("local", job.id)
    follower.join()
    assert heard.versions == [1, 2]


def test_a_redis_that_comes_back_empty_does_not_end_the_stream(http, job, claim, services, personalized):
    claim(job.id)
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.types == ["queued", "running"])
    services.redis.flushall()
    services.jobs.restore("local", job.id)  # as the maintenance does
    personalized(job.id)
    follower.join()
    assert heard.types == ["queued", "running", "queued", "running", "succeeded"]


def test_an_end_that_redis_forgot_is_found_in_the_store(http, job, services, monkeypatch, archive):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.3)
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.comments >= 1)
    last = f"{time.time_ns() // 1_000_000}-7"
    over = {"state": JobState.FAILED, "finished_at": time.time(), "event_id": last, "version": 9}
    archive.put_outcome(job.model_copy(update=over))  # ended, written down, and not heard of before Redis was lost
    services.redis.flushall()
    follower.join()
    assert [(name, kind) for name, kind, _ in heard.events][1:] == [(last, "failed")]


def test_a_redis_that_is_away_for_a_moment_is_waited_for(tmp_path, photo, finder, monkeypatch):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.3)
    with LocalRedis(tmp_path / "redis") as local:
        settings = Settings(redis_url=local.url, data_dir=tmp_path)
        with closing(connect(settings)) as redis:
            services = make_services(MemoryStore(), Ledger(redis, Limits()), MemoryNotifier())
            app = create_app(settings, services=services)
            app.dependency_overrides[the_photo_checker] = lambda: finder
            with served(app) as url, httpx.Client(base_url=url) as http:
                made = http.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
                job, heard = services.jobs.get("local", made["job_id"]), Heard()
                follower = threading.Thread(target=listen, args=(http, job, heard))
                follower.start()
                until(lambda: heard.types == ["queued"])
                redis.bgsave()
                local.stop()
                quiet = heard.comments
                until(lambda: heard.comments > quiet + 1)
                local.start()
                services.jobs.cancel("local", job.id)
                follower.join()
    assert heard.types == ["queued", "canceled"]


def test_a_follower_hears_that_the_subject_was_deleted(http, job, services, monkeypatch):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.3)
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.types == ["queued"])
    services.subjects.delete("local", job.subject_id)
    follower.join()
    assert heard.types == ["queued", "deleted"]
    assert heard.events[-1][0] == ""
    assert http.get(f"/v1/jobs/{job.id}/events", headers={"last-event-id": heard.last_id}).status_code == 404


def test_silence_is_filled_with_comments(http, job, monkeypatch):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.1)
    heard = Heard()
    listen(http, job, heard, stop=lambda: heard.comments >= 3)
    assert heard.types == ["queued"]


def test_a_stream_does_not_last_for_ever(http, job, monkeypatch):
    monkeypatch.setattr(event_stream, "MOST_SECONDS", 0.0)
    assert followed(http, job).types == ["queued"]


def test_a_process_that_is_told_to_stop_ends_its_streams(http, app, job):
    heard = Heard()
    follower = threading.Thread(target=listen, args=(http, job, heard))
    follower.start()
    until(lambda: heard.types == ["queued"])
    app.state.feed.is_ending = True
    until(lambda: not follower.is_alive(), seconds=2)


@pytest.mark.parametrize("mistake", ["no stream", "no event"])
def test_a_stream_that_cannot_be_read_concerns_no_other(http, job, services, photo, monkeypatch, caplog, mistake):
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.3)
    made = http.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()
    other, redis = services.jobs.get("local", made["job_id"]), services.redis
    redis.delete(event_key(other.ref))
    _ = redis.set(event_key(other.ref), "x") if mistake == "no stream" else redis.xadd(event_key(other.ref), {"a": "b"})
    heard = [Heard(), Heard()]
    followers = [
        threading.Thread(target=listen, args=(http, each, ear)) for each, ear in zip([job, other], heard, strict=True)
    ]
    for follower in followers:
        follower.start()
    until(lambda: "events.unreadable" in caplog.text and heard[0].types == ["queued"])
    services.jobs.cancel("local", job.id)
    followers[0].join()
    assert heard[0].types == ["queued", "canceled"]
    redis.delete(event_key(other.ref))
    services.jobs.cancel("local", other.id)
    followers[1].join()
    assert heard[1].types[-1] == "canceled"


@pytest.mark.parametrize("far", ["9" * 18 + "-" + "9" * 18, "000-000", "9" * 18 + "-007"])
def test_ids_from_elsewhere_do_no_harm(http, job, personalized, far):
    personalized(job.id)
    heard = Heard([(far, "running", {"version": 0})])
    listen(http, job, heard)
    assert heard.types[-1] == "succeeded"


def test_many_followers_share_one_connection_and_leave_nothing(http, app, job, claim, services):
    held = claim(job.id)
    heard = [Heard() for _ in range(40)]
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=http.base_url, timeout=30, limits=limits) as many:
        followers = [threading.Thread(target=listen, args=(many, job, each)) for each in heard]
        threads_before = threading.active_count()
        for follower in followers:
            follower.start()
        until(lambda: all(each.types == ["queued", "running"] for each in heard))
        held.at("finetune", 1, 2)
        until(lambda: all(each.types[-1] == "progress" for each in heard))
        readers = [c for c in services.redis.client_list() if c["cmd"] == "xrange"]
        assert len(readers) == 1
        assert http.get("/readyz?exclude=workers").status_code == 200
        assert threading.active_count() < threads_before + len(followers) + 45  # the pool's, which others use as well
        held.services.claims.cancel(held.assignment)
        for follower in followers:
            follower.join()
    assert {tuple(each.versions) for each in heard} == {(1, 2, 3, 4)}
    until(lambda: app.state.feed.followers == 0)
    until(lambda: not [c for c in services.redis.client_list() if c["cmd"] == "xrange"])


def test_a_client_that_goes_away_is_noticed(http, app, job):
    listen(http, job, Heard(), most=10)
    until(lambda: app.state.feed.followers == 0, seconds=3)


def test_a_slow_reader_gets_everything(http, job, claim):
    heard = Heard()
    held = claim(job.id)
    listen(http, job, heard, most=300)
    worker = threading.Thread(target=work, args=(held, 180, 0.0))
    worker.start()
    worker.join()
    listen(http, job, heard, stop=lambda: bool(time.sleep(0.005)))
    assert heard.versions == list(range(1, 184))


@pytest.mark.parametrize("value", ["x", "1", "1-x", "-1", "52-9715740037366023480", "1-1-1"])
def test_a_malformed_id_is_refused(client, photo, value):
    job_id = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()["job_id"]
    answer = client.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": value})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert answer.json()["field"] == "Last-Event-ID"
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_cannot_be_followed_says_why(client, photo, monkeypatch):
    assert client.get(f"/v1/jobs/job_{'0' * 25}/events").json()["code"] == "job-not-found"
    job_id = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()["job_id"]
    monkeypatch.setattr(event_reader, "MOST_FOLLOWERS", 0)
    full = client.get(f"/v1/jobs/{job_id}/events")
    assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (429, "too-many-followers", "10")


def test_without_redis_what_waits_is_503_and_what_is_over_is_told(client, photo, personalized, services, monkeypatch):
    over, waits = (
        client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()["job_id"] for _ in "12"
    )
    personalized(over)
    nowhere = Settings(redis_url="redis://127.0.0.1:9/0")
    monkeypatch.setattr(services.jobs, "_ledger", Ledger(connect(nowhere), Limits()))
    monkeypatch.setattr(client.app.state.feed, "_connect", partial(connect_async, nowhere))
    assert client.get(f"/v1/jobs/{waits}/events").status_code == 503
    answer = client.get(f"/v1/jobs/{over}/events")
    assert answer.text.count("event: ") == 1
    assert "event: succeeded" in answer.text


def test_the_document_says_the_form_of_a_stream(client: TestClient):
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]
    example = responses["200"]["content"]["text/event-stream"]["example"]
    heard = Heard()
    heard.take(example)
    assert heard.types == ["queued", "running", "progress"]
    for _, kind, data in heard.events:
        assert event_stream.schemas.JobEvent.model_validate(data).type == kind
    assert "JobEvent" in document["components"]["schemas"]
    assert set(responses) == {"200", "204", "401", "403", "404", "413", "422", "429", "500", "503"}


def test_a_reader_ends_with_its_last_follower(settings):
    async def follow_twice() -> list[bool]:
        feed = event_reader.Feed(partial(connect_async, settings))
        async with feed.follow() as first, feed.follow() as second:
            seen = [first is second, await first.now("local/job_x", "0-0") == []]
        async with feed.follow() as third:
            return [*seen, third is not first, await third.next("local/job_x", "0-0", 0.3) == []]

    assert asyncio.run(follow_twice()) == [True] * 4


def test_progress_is_written_by_the_ledger(job, ledger, http):
    """What the tests above call a step is what a worker does."""
    (claim,) = ledger.claim(JobKind.PERSONALIZE, job.ref)
    ledger.beat(claim, Progress("finetune", 1, 2), event="progress")
    assert followed(http, job, stop=lambda: True, most=10).types == []
    heard = Heard()
    listen(http, job, heard, stop=lambda: len(heard.events) == 3)
    assert heard.types == ["queued", "running", "progress"]
