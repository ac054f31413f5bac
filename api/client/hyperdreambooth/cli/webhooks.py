"""`hdb webhooks`: addresses that the service posts events to."""

from __future__ import annotations

from argparse import Namespace
from typing import get_args

from hyperdreambooth.cli.arguments import add_id, add_limit
from hyperdreambooth.cli.output import Output, note, when
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import DeliveryAnswer, WebhookAnswer, WebhookEventName


def add_commands(top: Commands) -> None:
    """`hdb webhooks ...`."""
    webhooks = top.noun("webhooks", "have events posted to an address, and see how that goes", default="")
    command = webhooks.add("create", create, "make a webhook, and print its id and its secret, once")
    command.add_argument("address", metavar="URL", help="a public https address")
    names = get_args(WebhookEventName)
    command.add_argument(
        "--event", dest="events", action="append", choices=names, metavar="NAME", help=f"{', '.join(names)} (all)"
    )
    command.add_argument("--description", metavar="TEXT", help="for yourself")
    webhooks.add("list", list_all, "list the webhooks, without their secrets")
    add_id(webhooks.add("test", test, "send a test message"), "webhook")
    command = webhooks.add("deliveries", deliveries, "list the newest messages, and how the attempts at them went")
    add_id(command, "webhook")
    add_limit(command)
    command = webhooks.add("rotate", rotate, "change a webhook's secret, and print the new one, once")
    add_id(command, "webhook")
    hours = "how long the old secret counts as well (24); 0 when others know it"
    command.add_argument("--overlap-hours", type=int, default=24, metavar="N", help=hours)
    add_id(webhooks.add("enable", enable, "post events again, after the address had answered 410 (Gone)"), "webhook")
    add_id(webhooks.add("delete", delete, "have nothing posted any more, also not what was due"), "webhook")


def create(client: Client, args: Namespace, out: Output) -> None:
    """A webhook is made; its id and its secret are on one line."""
    made = client.create_webhook(args.address, events=args.events, description=args.description)
    note("Keep this secret now: it cannot be read again.")
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


def test(client: Client, args: Namespace, out: Output) -> None:
    """A test message is sent."""
    sent = client.test_webhook(args.webhook)
    note(f"hdb webhooks deliveries {sent.webhook_id} shows how it went.")
    out.show(sent, sent.id)


def deliveries(client: Client, args: Namespace, out: Output) -> None:
    """A table of messages, and how the last attempt at each went."""
    columns = {
        "ID": lambda delivery: delivery.id,
        "TYPE": lambda delivery: delivery.type,
        "STATUS": lambda delivery: delivery.status,
        "ATTEMPTS": lambda delivery: str(len(delivery.attempts)),
        "LAST": _last,
        "NEXT": lambda delivery: when(delivery.next_attempt_at) if delivery.next_attempt_at else "-",
    }
    out.show_all(client.deliveries(args.webhook, limit=args.n), columns)


def rotate(client: Client, args: Namespace, out: Output) -> None:
    """A new secret; the old one counts for a while."""
    changed = client.rotate_webhook(args.webhook, overlap_hours=args.overlap_hours)
    until = changed.old_secrets_until
    ends = f"until {when(until)} (UTC)" if until else "no more"
    note(f"Keep this secret now: it cannot be read again. The old one counts {ends}.")
    out.show(changed, changed.secret)


def enable(client: Client, args: Namespace, out: Output) -> None:
    """Events are posted again."""
    enabled = client.enable_webhook(args.webhook)
    out.show(enabled, f"{enabled.id}  {_status(enabled)}")


def delete(client: Client, args: Namespace, _: Output) -> None:
    """Nothing more is posted."""
    client.delete_webhook(args.webhook)
    note(f"{args.webhook} gets nothing any more.")


def _status(webhook: WebhookAnswer) -> str:
    return "disabled" if webhook.disabled_at else "enabled"


def _last(delivery: DeliveryAnswer) -> str:
    if not delivery.attempts:
        return "-"
    last = delivery.attempts[-1]
    return last.error or str(last.status_code)
