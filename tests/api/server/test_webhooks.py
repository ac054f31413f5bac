from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import get_args

import anyio
import pytest

from api.server.dependencies import the_resolver
from core.storage import keys
from core.webhooks.addresses import BoundedResolver
from core.webhooks.dispatcher import Dispatcher
from core.webhooks.messages import WebhookEvent
from core.webhooks.schedule import Schedule
from core.webhooks.sender import Sender
from core.webhooks.testing import FakeBackend, FakeResolver
from hyperdreambooth.schemas.webhooks import WebhookEventName

URL = "https://hooks.example.com/in?token=s3cret"
PUBLIC = "93.184.215.14"


@pytest.fixture
def resolver(client):
    resolver = FakeResolver({"hooks.example.com": [[PUBLIC]], "inside.example.com": [["10.0.0.1"]]})
    client.app.dependency_overrides[the_resolver] = lambda: resolver
    return resolver


@pytest.fixture
def webhook(client, resolver):
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def network():
    return FakeBackend()


@pytest.fixture
def deliver(services, resolver, network):
    """Sends what is due, as the dispatcher does."""
    schedule = Schedule(services.redis)
    webhooks = services.webhooks

    def deliver():
        dispatcher = Dispatcher(webhooks, schedule, Sender(resolve=resolver, backend=network))
        while taken := schedule.take(10):
            for due in taken:
                anyio.run(dispatcher.deliver, due)

    return deliver


def test_a_webhook_from_its_making_to_its_end(client, webhook, store):
    assert webhook["url"] == URL
    assert (webhook["events"], webhook["description"], webhook["disabled_at"]) == (None, None, None)
    assert len(base64.b64decode(webhook["secret"].removeprefix("whsec_"))) == 32
    known = {name: value for name, value in webhook.items() if name != "secret"}
    assert client.get(f"/v1/webhooks/{webhook['id']}").json() == known
    assert client.get("/v1/webhooks").json() == {"webhooks": [known]}
    gone = client.delete(f"/v1/webhooks/{webhook['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    posts = [("POST", f"/{what}") for what in ("test", "rotate", "enable")]
    for method, path in [("GET", ""), ("DELETE", ""), *posts, ("GET", "/deliveries")]:
        answer = client.request(method, f"/v1/webhooks/{webhook['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook-not-found")
    assert client.get("/v1/webhooks").json() == {"webhooks": []}
    assert list(store.list("")) == []


def test_it_says_where_it_is(client, resolver):
    answer = client.post("/v1/webhooks", json={"url": URL, "events": ["job.failed"], "description": " mine "})
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
    assert (answer.json()["events"], answer.json()["description"]) == (["job.failed"], "mine")


def test_an_event_that_is_named_twice_counts_once(client, resolver):
    answer = client.post("/v1/webhooks", json={"url": URL, "events": ["job.failed", "job.failed"]})
    assert answer.json()["events"] == ["job.failed"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"url": 5}, "url"),
        ({"url": "https://h.example/" + "a" * 2048}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["job.exploded"]}, "events.0"),
        ({"url": URL, "events": ["webhook.test"]}, "events.0"),
        ({"url": URL, "events": "job.failed"}, "events"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
        ({"url": URL, "description": ""}, "description"),
        ({"url": URL, "description": "a" * 201}, "description"),
    ],
)
def test_wrong_fields(client, resolver, store, body, field):
    answer = client.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert answer.json()["errors"][0]["field"] == field
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://inside.example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://unknown.example.com/",
        "https://hooks.example.com:22/",
    ],
)
def test_what_is_not_public_is_refused(client, resolver, store, url):
    answer = client.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "webhook-refused", "url")
    assert list(store.list("")) == []


def test_development_may_be_private(settings, services, store):
    from fastapi.testclient import TestClient

    from api.server.app import create_app

    app = create_app(settings.model_copy(update={"webhooks_allow_private": True}), services=services)
    client = TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    assert client.post("/v1/webhooks", json={"url": "http://127.0.0.1:5000/hook"}).status_code == 201


def test_a_name_that_takes_too_long_is_refused(client, monkeypatch):
    monkeypatch.setattr("api.server.routes.webhooks.RESOLVE_SECONDS", 0.05)

    def slow(name, port):
        time.sleep(0.5)
        return [PUBLIC]

    client.app.dependency_overrides[the_resolver] = lambda: slow
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "webhook-refused", "url")


def test_too_many_names_at_once_are_put_off(client):
    client.app.dependency_overrides[the_resolver] = lambda: BoundedResolver(0, lambda name, port: [PUBLIC])
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")


def test_tests_do_not_pile_up(client, webhook, monkeypatch):
    monkeypatch.setattr("core.webhooks.registry.MOST_PENDING", 3)
    statuses = [client.post(f"/v1/webhooks/{webhook['id']}/test").status_code for _ in range(4)]
    assert statuses == [202, 202, 202, 429]


def test_there_are_only_so_many(client, resolver, settings):
    answers = [client.post("/v1/webhooks", json={"url": URL}) for _ in range(settings.webhooks_per_tenant + 1)]
    assert [answer.status_code for answer in answers] == [201] * settings.webhooks_per_tenant + [409]
    assert answers[-1].json()["code"] == "too-many-webhooks"
    assert client.delete(f"/v1/webhooks/{answers[0].json()['id']}").status_code == 204
    assert client.post("/v1/webhooks", json={"url": URL}).status_code == 201


def test_a_test_message_and_its_delivery(client, webhook, deliver, network):
    sent = client.post(f"/v1/webhooks/{webhook['id']}/test")
    assert sent.status_code == 202
    assert (sent.json()["type"], sent.json()["status"], sent.json()["attempts"]) == ("webhook.test", "pending", [])
    deliver()
    (delivery,) = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
    assert (delivery["id"], delivery["status"]) == (sent.json()["id"], "delivered")
    assert delivery["next_attempt_at"] is None
    (attempt,) = delivery["attempts"]
    assert (attempt["attempt"], attempt["status_code"], attempt["error"]) == (1, 204, None)
    assert network.connections == [(PUBLIC, 443)]


def test_failures_show(client, webhook, deliver, network, resolver):
    network.answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    client.post(f"/v1/webhooks/{webhook['id']}/test")
    deliver()
    resolver.names["hooks.example.com"] = [["192.168.0.1"]]
    client.post(f"/v1/webhooks/{webhook['id']}/test")
    (newest, oldest) = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
    assert newest["attempts"] == []
    assert (oldest["status"], oldest["attempts"][0]["status_code"]) == ("pending", 503)
    assert oldest["next_attempt_at"] > oldest["created_at"]
    assert len(client.get(f"/v1/webhooks/{webhook['id']}/deliveries?limit=1").json()["deliveries"]) == 1
    assert client.get(f"/v1/webhooks/{webhook['id']}/deliveries?limit=0").status_code == 422


def test_gone_disables_it(client, webhook, deliver, network):
    network.answer = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    client.post(f"/v1/webhooks/{webhook['id']}/test")
    deliver()
    assert client.get(f"/v1/webhooks/{webhook['id']}").json()["disabled_at"]
    refused = client.post(f"/v1/webhooks/{webhook['id']}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook-disabled")


def test_a_disabled_one_can_be_enabled_again(client, webhook, deliver, network, monkeypatch):
    monkeypatch.setattr("core.webhooks.dispatcher.COOLDOWN_SECONDS", 0.0)
    path = f"/v1/webhooks/{webhook['id']}"
    network.answer = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    client.post(f"{path}/test")
    deliver()
    network.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    for _ in range(2):
        enabled = client.post(f"{path}/enable")
        assert (enabled.status_code, enabled.json()["disabled_at"]) == (200, None)
    assert client.get(path).json() == enabled.json()
    assert client.post(f"{path}/test").status_code == 202
    deliver()
    log = client.get(f"{path}/deliveries").json()["deliveries"]
    assert [each["status"] for each in log] == ["delivered", "given_up"]


def test_a_secret_is_changed_once_however_often_it_is_asked(client, webhook, store):
    path = f"/v1/webhooks/{webhook['id']}"
    headers = {"idempotency-key": "change"}
    first, again = (client.post(f"{path}/rotate", headers=headers) for _ in range(2))
    assert first.status_code == 200
    assert again.json() == first.json()
    assert first.json()["secret"] != webhook["secret"]
    until = datetime.fromisoformat(first.json()["old_secrets_until"])
    assert timedelta(hours=23.9) < until - datetime.now(UTC) <= timedelta(hours=24)
    known = client.get(path).json()
    assert "secret" not in known
    assert known["old_secrets_until"] == first.json()["old_secrets_until"]
    client.delete(path)
    assert [key for key in store.list("") if first.json()["secret"].encode() in store.get(key)] == []


def test_a_secret_that_others_know_ends_at_once(client, webhook, store):
    changed = client.post(f"/v1/webhooks/{webhook['id']}/rotate?overlap_hours=0").json()
    assert changed["old_secrets_until"] is None
    assert webhook["secret"].encode() not in store.get(keys.webhook("local", webhook["id"]))


@pytest.mark.parametrize("hours", ["-1", "169", "soon", "0.5"])
def test_an_overlap_that_means_nothing_is_refused(client, webhook, hours):
    answer = client.post(f"/v1/webhooks/{webhook['id']}/rotate?overlap_hours={hours}")
    assert (answer.status_code, answer.json()["field"]) == (422, "overlap_hours")


def test_what_happens_over_the_api_is_told(client, webhook, subject_id, deliver, network, generated):
    job = client.post("/v1/generations", json={"subject_id": subject_id, "prompt": "Ada as a [V] face"}).json()
    generated(job["id"])
    client.delete(f"/v1/subjects/{subject_id}")
    deliver()
    log = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
    assert sorted(each["type"] for each in log) == [
        "job.succeeded",
        "job.succeeded",
        "subject.deleted",
        "subject.ready",
    ]
    assert {each["status"] for each in log} == {"delivered"}
    assert b"Ada" not in network.sent
    assert b"/v1/" not in network.sent


def test_a_repeated_request_makes_one_webhook_and_its_end_ends_the_answer(client, resolver, store):
    """The remembered answer has the secret in it: it goes with the webhook."""
    headers = {"idempotency-key": "one"}
    first, again = (client.post("/v1/webhooks", json={"url": URL}, headers=headers) for _ in range(2))
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    secret = first.json()["secret"]
    client.delete(f"/v1/webhooks/{first.json()['id']}")
    assert [key for key in store.list("") if secret.encode() in store.get(key)] == []
    late = client.post("/v1/webhooks", json={"url": URL}, headers=headers)
    assert (late.status_code, late.json()["code"]) == (409, "answer-erased")


def test_neither_secret_nor_address_is_logged(client, webhook, deliver, caplog):
    caplog.set_level("DEBUG")
    client.post(f"/v1/webhooks/{webhook['id']}/test")
    deliver()
    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "webhook.attempted" in said
    assert webhook["secret"] not in said
    assert "s3cret" not in said


def test_every_event_can_be_asked_for():
    assert set(get_args(WebhookEventName)) == set(WebhookEvent) - {WebhookEvent.TEST}


def test_a_webhooks_document_is_its_tenants(client, webhook, store):
    assert store.exists(keys.webhook("local", webhook["id"]))
