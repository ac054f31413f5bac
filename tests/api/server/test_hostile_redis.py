"""A Redis in other hands: whatever it says, one tenant reads nothing of another, and nothing breaks.

Two tenants have the same things. Every field of every record that Redis holds of the one is changed, one at a time, to
what the other has in its place, to where the other's photo, weights and webhook lie in the store, and to what is no
value at all. Then the one reads all that it has, the maintenance and a worker do their work, and it reads again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis

from api.server.app import create_app
from api.server.dependencies import the_photo_checker, the_resolver
from core.errors import BrokerUnavailable
from core.jobs.claims import Assignment
from core.records import GenerateResult, Image, JobKind, JobState, PersonalizeResult, Preview, Weights
from core.services import Services
from core.settings import Settings
from core.storage import keys
from core.tenants.api_keys import ApiKeys
from core.testing import MemoryStore
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.schedule import Schedule
from worker.maintenance import Maintenance

PROMPT = "a pencil sketch of a [V] face"
NO_VALUES = ["", "x", "-1", "1e999", "nan", "9" * 30, "9" * 5000, "a\nid: 1-1", "{", "[]", "../..", "\u00e9\x00/"]


@dataclass
class Owner:
    """A tenant, and one of everything that it can have."""

    tenant: str
    client: TestClient
    ids: dict[str, str]
    """What each thing is called."""
    lies_at: list[str]
    """Where in the store its photo, its weights, a picture and its webhook are."""
    secrets: list[bytes]
    """What is in these, and what it has written: pictures and weights end in " of " and its name."""


@pytest.fixture
def settings(redis_url: str, tmp_path: Any) -> Settings:
    return Settings(redis_url=redis_url, data_dir=tmp_path, requests_per_minute=0, personalizations_per_hour=0)


@pytest.fixture
def app(settings: Settings, services: Services, finder: Any, decoder: Any) -> Any:
    app = create_app(settings, services=services)
    app.state.decoder = decoder
    app.dependency_overrides[the_photo_checker] = lambda: finder
    app.dependency_overrides[the_resolver] = lambda: lambda name, port: ["93.184.215.14"]
    return app


@pytest.fixture
def owners(app: Any, services: Services, store: MemoryStore, photo: bytes) -> tuple[Owner, Owner]:
    victim, attacker = (owner(app, services, store, photo, tenant) for tenant in ("acme", "other"))
    return victim, attacker


def owner(app: Any, services: Services, store: MemoryStore, photo: bytes, tenant: str) -> Owner:
    client = TestClient(
        app,
        headers={"authorization": f"Bearer {ApiKeys(store).create(tenant, 'test')[1]}"},
        client=("10.0.0.7", 5),
        raise_server_exceptions=False,
    )

    def claim(kind: JobKind, job_id: str) -> Assignment:
        (held,) = services.claims.claim(kind, f"{tenant}/{job_id}")
        for name in ("0.png", "preview.lidb", "refined.lidb"):
            services.claims.store(held, name, f"{name} of {tenant}".encode(), content_type="a/b")
        return held

    def personalizing() -> tuple[str, str, Assignment]:
        made = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true", "name": f"Ada of {tenant}"})
        held = claim(JobKind.PERSONALIZE, made.json()["job_id"])
        services.claims.preview(held, Preview(image=picture(held)))
        return made.json()["id"], made.json()["job_id"], held

    def generating() -> str:
        body = {"subject_id": ready, "prompt": f"{PROMPT} of {tenant}"}
        return str(client.post("/v1/generations", json=body).json()["id"])

    ready, job, held = personalizing()
    services.claims.commit(held, weights_of(held), {"finetune": 1.0})
    ended = generating()
    drawn = claim(JobKind.GENERATE, ended)
    services.claims.commit(drawn, GenerateResult(images=(picture(drawn),)), {"generate": 1.0})
    running, running_job, _ = personalizing()
    unsettled, unsettled_job, last = personalizing()  # its worker died before it wrote the result down
    services.jobs._ledger.finish(last.claim, JobState.SUCCEEDED, result=weights_of(last), seconds={"finetune": 1.0})
    webhook = client.post("/v1/webhooks", json={"url": f"https://hooks.example.com/{tenant}"}).json()
    services.webhooks.publish(Message(tenant, WebhookEvent.JOB_SUCCEEDED, 1.7e9, ended, {"job_id": ended}))
    ids = {
        "ready": ready,
        "job": job,
        "ended": ended,
        "queued": generating(),
        "running": running,
        "running_job": running_job,
        "unsettled": unsettled,
        "unsettled_job": unsettled_job,
        "webhook": webhook["id"],
    }
    key = keys.photos(tenant, running, running_job) + "0.png"
    store.put(key, f"photo of {tenant}".encode())
    weights = keys.weights(tenant, job, held.job.fence, "refined")
    drawing = keys.picture(tenant, keys.image_id(ended, 0), drawn.job.fence)
    sealed = json.loads(store.objects[keys.webhook(tenant, webhook["id"])])["secret"]
    secrets = [sealed.encode()]
    secrets += [f" of {tenant}".encode(), f"example.com/{tenant}".encode()]
    return Owner(tenant, client, ids, [key, weights, drawing, keys.webhook(tenant, webhook["id"])], secrets)


def picture(held: Assignment) -> Image:
    return Image(id=keys.image_id(held.job.id, 0), seed=7, width=8, height=8)


def weights_of(held: Assignment) -> PersonalizeResult:
    refined, preview = (
        keys.weights(held.job.tenant, held.job.id, held.job.fence, each) for each in ("refined", "preview")
    )
    weights = Weights(refined_key=refined, preview_key=preview, bytes=7, sha256="0" * 64)
    return PersonalizeResult(weights=weights, likeness=0.5, kept_step=9, bundle="toy", bundle_fingerprint="f")


def as_theirs(value: str, attacker: Owner, victim: Owner) -> str:
    """The value that the victim has in the same place."""
    for name, own in attacker.ids.items():
        value = value.replace(own.partition("_")[2], victim.ids[name].partition("_")[2])
    return value.replace(attacker.tenant, victim.tenant)


def in_its_place(value: str, attacker: Owner, victim: Owner) -> Iterator[str]:
    """What a field is changed to."""
    yield as_theirs(value, attacker, victim)
    turn = len(value)
    yield from (NO_VALUES[(turn + each) % len(NO_VALUES)] for each in (0, 5, 9))
    yield victim.lies_at[turn % len(victim.lies_at)]
    yield (f"{victim.tenant}/{victim.ids['queued']}", victim.ids["ended"], victim.ids["running"])[turn % 3]
    if value.startswith("{"):
        for place in victim.lies_at:
            yield json.dumps(with_keys(json.loads(value), place))


def with_keys(value: Any, place: str) -> Any:
    """Every text in it is a key of the store, and every object has the fields that once held keys."""
    if isinstance(value, dict):
        found = {name: with_keys(each, place) if name not in ("kind", "id") else each for name, each in value.items()}
        if not any(isinstance(each, str) for each in value.values()):  # numbers by name
            return found
        return {**found, "key": place, "weights_key": place, "refined_key": place, "preview_key": place}
    if isinstance(value, list):
        return [with_keys(each, place) for each in value]
    return place if isinstance(value, str) else value


def changes(redis: Any, attacker: Owner, victim: Owner) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every change of one field of what Redis holds of the attacker, or of everybody.

    Records of a kind, such as those of all its jobs, are changed at once: they do not know of each other.
    """
    kinds: dict[str, list[str]] = {}
    for key in sorted(redis.keys()):
        if not key.startswith(f"hdb:{victim.tenant}:"):
            kinds.setdefault(re.sub("[0-9a-z]{25,}", "", key), []).append(key)
    for name, found in kinds.items():
        kind = redis.type(found[0])
        if kind not in CHANGED:
            raise AssertionError(f"say here how {name} is changed: it is a {kind}")
        fields: dict[str, list[tuple[str, list[str]]]] = {}
        for key in found:
            for field, value in CHANGED[kind][0](redis, key).items():
                fields.setdefault(field, []).append((key, list(in_its_place(value, attacker, victim))))
        for field, places in fields.items():
            for index in range(max(len(others) for _, others in places)):
                chosen = [(key, others[index % len(others)]) for key, others in places]
                yield f"{name} {field[:40]}={chosen[0][1][:60]!r}", partial(change, redis, kind, field, chosen)
        yield f"{name} of another type", partial(replace, redis, found)


def change(redis: Any, kind: str, field: str, chosen: list[tuple[str, str]]) -> None:
    for key, other in chosen:
        CHANGED[kind][1](redis, key, field, other)


def replace(redis: Any, found: list[str]) -> None:
    for key in found:
        redis.delete(key)
        redis.rpush(key, "x")


def last_entry(redis: Any, key: str) -> dict[str, str]:
    return dict(redis.xrevrange(key, count=1)[0][1])


CHANGED: dict[str, tuple[Callable[..., dict[str, str]], Callable[..., Any]]] = {
    "hash": (lambda redis, key: redis.hgetall(key), lambda redis, key, field, to: redis.hset(key, field, to)),
    "zset": (
        lambda redis, key: {member: member for member in redis.zrange(key, 0, -1)},
        lambda redis, key, field, to: redis.zadd(key, {to: 1}),
    ),
    "set": (
        lambda redis, key: {member: member for member in redis.smembers(key)},
        lambda redis, key, field, to: redis.sadd(key, to),
    ),
    "stream": (last_entry, lambda redis, key, field, to: redis.xadd(key, {**last_entry(redis, key), field: to})),
    "string": (lambda redis, key: {"": redis.get(key)}, lambda redis, key, field, to: redis.set(key, to)),
}
"""For each type of Redis: its fields with their values, and how one is changed."""


def read_all(attacker: Owner, victim: Owner) -> Iterator[tuple[str, int, bytes]]:
    """Everything that the attacker can read, of its own things and of the victim's."""
    own = attacker.ids
    jobs = [own[name] for name in ("job", "ended", "queued", "running_job", "unsettled_job")]
    paths = ["/v1/jobs", "/v1/usage", "/metrics", "/readyz"]
    paths += [f"/v1/jobs/{job}" for job in jobs]
    paths += [f"/v1/jobs/{own['ended']}/events", f"/v1/images/{keys.image_id(victim.ids['running_job'], 0)}"]
    paths += [f"/v1/images/{keys.image_id(job, 0)}" for job in jobs]
    for name in ("ready", "running", "unsettled"):
        paths += [f"/v1/subjects/{own[name]}"]
        paths += [f"/v1/subjects/{own[name]}/weights?stage={stage}" for stage in ("preview", "refined")]
    paths += [f"/v1/webhooks/{own['webhook']}/deliveries"]
    for path in paths:
        answer = attacker.client.get(path)
        yield path, answer.status_code, answer.content


def work(services: Services, attacker: Owner) -> None:
    """What goes on meanwhile: the maintenance, a worker, the dispatcher, and a cancel."""
    Maintenance(services, reap_seconds=0.002, reconcile_seconds=0.002).tick()
    services.recovery.reap()
    services.recovery.reconcile()
    for kind in JobKind:
        for held in services.claims.claim(kind, f"{attacker.tenant}/{attacker.ids['queued']}", max_jobs=1):
            services.claims.commit(held, weights_of(held), {"total": 1.0})
    Schedule(services.redis).take(4)
    attacker.client.post(f"/v1/jobs/{attacker.ids['running_job']}/cancel")


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_redis_says_nothing_of_another_tenant_is_read_and_nothing_breaks(
    owners: tuple[Owner, Owner], services: Services, store: MemoryStore, raw: Any
) -> None:
    victim, attacker = owners
    redis: Any = services.redis
    saved = {key: (raw.dump(key), max(raw.pttl(key), 0)) for key in list(raw.scan_iter())}
    objects = dict(store.objects)
    theirs = {key: data for key, data in objects.items() if victim.tenant in key}
    assert all(
        any(secret in data or secret in key.encode() for key, data in theirs.items()) for secret in victim.secrets
    )
    wrong, tried = [], 0

    def read(what: str) -> None:
        for path, status, body in read_all(attacker, victim):
            if status >= 500 and not (b"broker-unavailable" in body or path == "/readyz"):
                wrong.append(f"{what}: {path} is a {status}")
            if any(secret in body for secret in victim.secrets):
                wrong.append(f"{what}: {path} tells of the other tenant")

    for what, make in list(changes(redis, attacker, victim)):
        tried += 1
        make()
        read(what)
        try:
            work(services, attacker)
        except BrokerUnavailable:  # what is of another type is an outage
            pass
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{what}: {error!r}")
        read(f"{what}, and later")
        own = [data for key, data in store.objects.items() if attacker.tenant in key]
        wrong += [f"{what}: stored" for data in own if any(secret in data for secret in victim.secrets)]
        store.objects = dict(objects)
        raw.flushdb()
        for key, (data, ttl) in saved.items():
            raw.restore(key, ttl, data)
    assert tried > 200
    assert wrong == [], f"{len(wrong)} of {tried}"
