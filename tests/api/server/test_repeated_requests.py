"""A process dies after it has carried out a request, before the response is saved: the same one makes nothing new."""

from __future__ import annotations

import pytest

from api.server import idempotency
from core.tenants.idempotency import LOCK_SECONDS

CONSENT = {"consent": "true", "name": "Ada"}
PROMPT = "a pencil sketch of a [V] face"
LINES = {"content-type": "application/jsonl"}


def generation(client, subject_id, photo, **keyed):
    return client.post("/v1/generations", json={"subject_id": subject_id, "prompt": PROMPT}, **keyed)


def subject(client, subject_id, photo, **keyed):
    return client.post("/v1/subjects", files={"photo": ("me.jpg", photo)}, data=CONSENT, **keyed)


def batch(client, subject_id, photo, **keyed):
    return client.post("/v1/batches", json={"items": [{"subject_id": subject_id, "prompt": PROMPT}]}, **keyed)


def lines(client, subject_id, photo, headers):
    line = f'{{"subject_id": "{subject_id}", "prompt": "{PROMPT}"}}\n'
    return client.post("/v1/batches", content=line, headers=headers | LINES)


def webhook(client, subject_id, photo, **keyed):
    return client.post("/v1/webhooks", json={"url": "https://8.8.8.8/hook"}, **keyed)


def pack(client, subject_id, photo, **keyed):
    return client.post("/v1/packs", json={"name": "mine", "prompts": [PROMPT]}, **keyed)


@pytest.fixture
def dying(services, monkeypatch):
    """A process that dies when the response is about to be saved; its locks have expired since."""

    async def die(*_):
        raise RuntimeError

    async def not_any_more(*_):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "save", die)
        patch.setattr(idempotency, "unlock", not_any_more)
        yield patch


@pytest.mark.parametrize("post", [generation, subject, batch, lines, webhook, pack], ids=lambda post: post.__name__)
def test_a_request_whose_response_was_not_saved_makes_nothing_twice(
    post, client, subject_id, photo, store, services, notifier, dying
):
    headers = {"idempotency-key": "a-key"}
    assert post(client, subject_id, photo, headers=headers).status_code == 500
    dying.undo()
    (lock,) = services.redis.scan_iter("hdb:*:idempotency:*")
    assert 0 < services.redis.ttl(lock) <= LOCK_SECONDS < 10
    services.redis.delete(lock)
    before = {key for key in store.list("") if not key.startswith("idempotency/")}
    notified = list(notifier.notified)
    again = post(client, subject_id, photo, headers=headers)
    assert (again.status_code in (201, 202), notifier.notified) == (True, notified), again.text
    assert {key for key in store.list("") if not key.startswith("idempotency/")} == before
    assert any(again.json()["id"] in key for key in before)
    assert post(client, subject_id, photo, headers=headers).json() == again.json()


def test_what_was_made_and_deleted_since_is_not_made_again(client, subject_id, photo, services, dying, store):
    assert subject(client, subject_id, photo, headers={"idempotency-key": "a-key"}).status_code == 500
    dying.undo()
    services.redis.delete(*services.redis.scan_iter("hdb:*:idempotency:*"))
    (made,) = {key.split("/")[2] for key in store.list("local/subjects/")} - {subject_id}
    assert client.delete(f"/v1/subjects/{made}").status_code == 202
    again = subject(client, subject_id, photo, headers={"idempotency-key": "a-key"})
    assert (again.status_code, again.json()["code"]) == (409, "answer-erased")
