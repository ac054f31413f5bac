from __future__ import annotations

import json

import pytest

from api.server.dependencies import the_resolver
from core.webhooks.records import Attempt

URL = "https://hooks.example.com/in"


@pytest.fixture(autouse=True)
def public(client):
    client.app.dependency_overrides[the_resolver] = lambda: lambda name, port: ["93.184.215.14"]


@pytest.fixture
def made(hdb):
    """A webhook's id."""
    return hdb("webhooks", "create", URL).out.split()[0]


def test_a_webhook_is_made_and_its_secret_said_once(hdb):
    done = hdb("webhooks", "create", URL, "--event", "job.failed", "--event", "job.succeeded", "--description", "mine")
    assert (done.status, done.err) == (0, "Keep this secret now: it cannot be read again.\n")
    identifier, secret = done.out.split()
    assert secret.startswith("whsec_")
    (known,) = hdb("webhooks", "list", "--json").out.splitlines()
    assert json.loads(known)["events"] == ["job.failed", "job.succeeded"]
    head, row = hdb("webhooks", "list").out.splitlines()
    assert head.split() == ["ID", "STATUS", "EVENTS", "CREATED", "ADDRESS"]
    cells = row.split()
    assert (cells[:3], cells[-1]) == ([identifier, "enabled", "job.failed,job.succeeded"], URL)
    assert secret not in row + known


def test_a_test_message_and_what_became_of_it(hdb, made, services):
    done = hdb("webhooks", "test", made)
    message = done.out.strip()
    assert message.startswith("msg_")
    assert f"hdb webhooks deliveries {made}" in done.err
    head, row = hdb("webhooks", "deliveries", made).out.splitlines()
    assert head.split() == ["ID", "TYPE", "STATUS", "ATTEMPTS", "LAST", "NEXT"]
    assert row.split()[:5] == [message, "webhook.test", "pending", "0", "-"]
    webhooks = services.webhooks
    tried = (Attempt(at=1.0, seconds=0.1, error="TLS failed"), Attempt(at=2.0, seconds=0.1, status=503))
    delivery = webhooks.delivery("local", made, message)
    for attempts, last in ((tried[:1], "1         TLS failed"), (tried, "2         503")):
        webhooks.put_delivery(delivery.model_copy(update={"attempts": attempts}))
        assert last in hdb("webhooks", "deliveries", made, "-n", "1").out


def test_a_disabled_one_says_so(hdb, made, services):
    webhooks = services.webhooks
    webhooks.disable(webhooks.get("local", made))
    assert hdb("webhooks", "list").out.splitlines()[1].split()[1] == "disabled"
    refused = hdb("webhooks", "test", made)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("hdb: The webhook is disabled")
    assert hdb("webhooks", "enable", made).out == f"{made}  enabled\n"
    assert hdb("webhooks", "test", made).status == 0


def test_a_secret_is_changed(hdb, made, services):
    done = hdb("webhooks", "rotate", made)
    assert done.out.startswith("whsec_")
    assert "The old one counts until 20" in done.err
    at_once = hdb("webhooks", "rotate", made, "--overlap-hours", "0")
    assert "The old one counts no more." in at_once.err
    webhook = services.webhooks.get("local", made)
    assert (webhook.secret, webhook.former) == (at_once.out.strip(), ())


def test_a_deleted_one_is_gone(hdb, made):
    done = hdb("webhooks", "delete", made)
    assert (done.status, done.out, done.err) == (0, "", f"{made} gets nothing any more.\n")
    assert hdb("webhooks", "delete", made).status == 1
    assert len(hdb("webhooks", "list").out.splitlines()) == 1


@pytest.mark.parametrize("argv", [(), ("create",), ("create", URL, "--event", "job.exploded"), ("test",), ("dance",)])
def test_a_wrong_command_line_is_a_2(hdb, argv):
    done = hdb("webhooks", *argv)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("usage: hdb webhooks")
