"""`hdb webhooks`: where the service tells what happens. All of them raise Problem; results go to stdout."""

from __future__ import annotations

from argparse import Namespace

from hyperdreambooth.cli.output import Output, note, when
from hyperdreambooth.client import Client
from hyperdreambooth.schemas.webhooks import DeliveryAnswer, WebhookAnswer


def create(client: Client, asked: Namespace, out: Output) -> None:
    """A webhook is made; its id and its secret are on one line."""
    made = client.create_webhook(asked.address, events=asked.events, description=asked.description)
    note("Keep this secret now: it cannot be shown again.")
    out.show(made, f"{made.id} {made.secret}")


def list_all(client: Client, _: Namespace, out: Output) -> None:
    """A table of webhooks, without their secrets."""
    columns = {
        "ID": lambda webhook: webhook.id,
        "STATUS": _status,
        "EVENTS": lambda webhook: "all" if webhook.events is None else ",".join(webhook.events),
        "CREATED": lambda webhook: when(webhook.created_at),
        "ADDRESS": lambda webhook: webhook.url,
    }
    out.show_all(client.webhooks(), columns)


def test(client: Client, asked: Namespace, out: Output) -> None:
    """A message is sent that only says hello."""
    sent = client.test_webhook(asked.webhook)
    note(f"hdb webhooks deliveries {sent.webhook_id} says how it went.")
    out.show(sent, sent.id)


def deliveries(client: Client, asked: Namespace, out: Output) -> None:
    """A table of messages, and how the last attempt at each went."""
    columns = {
        "ID": lambda delivery: delivery.id,
        "TYPE": lambda delivery: delivery.type,
        "STATUS": lambda delivery: delivery.status,
        "ATTEMPTS": lambda delivery: str(len(delivery.attempts)),
        "LAST": _last,
        "NEXT": lambda delivery: when(delivery.next_attempt_at) if delivery.next_attempt_at else "-",
    }
    out.show_all(client.deliveries(asked.webhook, limit=asked.n), columns)


def rotate(client: Client, asked: Namespace, out: Output) -> None:
    """A new secret; the old one counts for a while."""
    changed = client.rotate_webhook(asked.webhook, overlap_hours=asked.overlap_hours)
    until = changed.old_secrets_until
    ends = f"until {when(until)} (UTC)" if until else "no more"
    note(f"Keep this secret now: it cannot be shown again. The old one counts {ends}.")
    out.show(changed, changed.secret)


def enable(client: Client, asked: Namespace, out: Output) -> None:
    """A webhook is told things again."""
    enabled = client.enable_webhook(asked.webhook)
    out.show(enabled, f"{enabled.id}  {_status(enabled)}")


def delete(client: Client, asked: Namespace, _: Output) -> None:
    """Nothing more is told there."""
    client.delete_webhook(asked.webhook)
    note(f"{asked.webhook} is told nothing any more.")


def _status(webhook: WebhookAnswer) -> str:
    return "disabled" if webhook.disabled_at else "enabled"


def _last(delivery: DeliveryAnswer) -> str:
    if not delivery.attempts:
        return "-"
    last = delivery.attempts[-1]
    return last.error or str(last.status_code)
