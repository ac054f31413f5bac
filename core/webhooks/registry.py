"""The webhooks of all tenants and their deliveries, in the store.

A delivery is a document and, while it is pending, an empty marker beside it. Both are written before the event itself
is recorded, so that the message is sent at least once whoever dies meanwhile. The message's id is derived from the
event: publishing it again changes nothing, and a receiver can drop a message that it gets twice.

When each delivery is due is in Redis (schedule.py) and, in case Redis loses it, in the document. dispatcher.py sends.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice

from redis import Redis

from core.errors import (
    BrokerUnavailable,
    ObjectNotFound,
    QueueFull,
    SettingsError,
    TooManyWebhooks,
    WebhookNotFound,
)
from core.ids import NEW, Ids, is_id, time_of
from core.records import DeliveryState, Record
from core.storage import Store, keys
from core.storage.encryption import Cipher
from core.storage.stored import dump, load
from core.tenants.idempotency import erase
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.records import Delivery, Webhook, new_secret
from core.webhooks.schedule import Backlog, Due, Schedule

KEPT_DELIVERIES = 100
"""How many ended deliveries of each webhook are kept."""
KEPT_SECONDS = 72 * 3600
"""How long ended deliveries are kept at most."""
MOST_PENDING = 100
"""A webhook with so many pending deliveries gets no test message."""

_log = logging.getLogger(__name__)


class Webhooks:
    """Reads and writes webhooks and deliveries. Raises StoreUnavailable; an outage of Redis is tolerated."""

    def __init__(self, store: Store, redis: Redis, cipher: Cipher | None = None) -> None:
        """`redis` decodes its answers to str.

        `cipher` encrypts the secrets. Without one they cannot be read, and no webhook can be stored: who publishes
        needs neither.
        """
        self.store = store
        self._cipher = cipher
        self._schedule = Schedule(redis)

    def create(
        self,
        tenant: str,
        url: str,
        events: tuple[str, ...] | None,
        *,
        description: str | None,
        most: int,
        ids: Ids = NEW,
    ) -> Webhook:
        """Create a webhook with a new secret. Raises TooManyWebhooks when the tenant has `most` of them."""
        webhook_id = ids("whk")
        if ids.repeated and (made := self.find(tenant, webhook_id)):
            return made
        webhook = Webhook(
            id=webhook_id,
            tenant=tenant,
            url=url,
            secret=new_secret(),
            events=events,
            description=description,
            created_at=time.time(),
        )
        full = TooManyWebhooks(f"A tenant may have {most} webhooks: delete one of them first.")
        if len(self._ids(tenant)) >= most:
            raise full
        self.put(webhook)
        if len(self._ids(tenant)) > most:  # others came at the same moment: there are never more, rather fewer
            self.store.delete(keys.webhook(tenant, webhook.id))
            raise full
        return webhook

    def put(self, webhook: Webhook) -> None:
        """Store the webhook, its secrets encrypted."""
        if self._cipher is None:
            raise SettingsError("there is no key to encrypt a webhook's secret with")
        sealed = webhook.with_secrets(partial(self._cipher.seal, about=keys.webhook(webhook.tenant, webhook.id)))
        _put(self.store, keys.webhook(webhook.tenant, webhook.id), sealed)

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        """The webhook. Raises WebhookNotFound."""
        found = self.find(tenant, webhook_id) if is_id(webhook_id, "whk") else None
        if found is None:
            raise WebhookNotFound(f"There is no webhook {webhook_id[:40]}.")
        return found

    def find(self, tenant: str, webhook_id: str) -> Webhook | None:
        """The webhook, or None. Raises SettingsError when its secrets were encrypted with another key."""
        key = keys.webhook(tenant, webhook_id)
        try:
            webhook = load(self.store, key, Webhook)
        except ObjectNotFound:
            return None
        return webhook.with_secrets(partial(self._cipher.open, about=key)) if self._cipher else webhook

    def all(self, tenant: str) -> Iterator[Webhook]:
        """A tenant's webhooks in the order they were created."""
        for webhook_id in self._ids(tenant):
            if webhook := self.find(tenant, webhook_id):
                yield webhook

    def disable(self, webhook: Webhook) -> None:
        """Disable the webhook unless it was deleted meanwhile; other changes made meanwhile are kept."""
        if found := self.find(webhook.tenant, webhook.id):
            self.put(found.model_copy(update={"disabled_at": time.time()}))

    def enable(self, tenant: str, webhook_id: str) -> Webhook:
        """Enable the webhook for events from now on. Raises WebhookNotFound."""
        webhook = self.get(tenant, webhook_id).model_copy(update={"disabled_at": None})
        self.put(webhook)
        return webhook

    def rotate(self, tenant: str, webhook_id: str, *, overlap: float) -> Webhook:
        """Give the webhook a new secret; see Webhook.rotated. Raises WebhookNotFound."""
        webhook = self.get(tenant, webhook_id).rotated(time.time(), overlap)
        self.put(webhook)
        return webhook

    def delete(self, tenant: str, webhook_id: str) -> None:
        """Delete the webhook with its secret and all its deliveries, pending ones included. Raises WebhookNotFound.

        Its document goes last: as long as that is there, this can be done again.
        """
        webhook = self.get(tenant, webhook_id)
        erase(self.store, tenant, webhook.id)
        self.delete_deliveries(tenant, webhook.id)
        self.store.delete(keys.webhook(tenant, webhook.id))
        self.delete_deliveries(tenant, webhook.id)  # what was published meanwhile

    def delete_deliveries(self, tenant: str, webhook_id: str) -> None:
        """Delete all deliveries of a webhook that no longer exists."""
        self.store.delete_prefix(keys.deliveries(tenant, webhook_id))
        self.store.delete_prefix(keys.undelivered(tenant, webhook_id))
        try:
            self._schedule.remove(tenant, webhook_id)
        except BrokerUnavailable:  # the dispatcher will find nothing to send, and remove it then
            _log.warning("webhook.unschedule_failed", extra={"webhook_id": webhook_id})

    def backlog(self) -> Backlog:
        """What waits to be sent, of all tenants. Raises BrokerUnavailable."""
        return self._schedule.backlog()

    def publish(self, message: Message) -> list[Delivery]:
        """Create a delivery of the message to every webhook that wants it. Publishing it again changes nothing."""
        return [self.enqueue(webhook, message) for webhook in self.all(message.tenant) if webhook.wants(message.event)]

    def enqueue(self, webhook: Webhook, message: Message) -> Delivery:
        """Create the delivery of the message to one webhook: from here on it is sent at least once."""
        fresh = Delivery(
            id=message.id,
            tenant=webhook.tenant,
            webhook_id=webhook.id,
            type=message.event,
            body=message.body,
            created_at=message.at,
            next_at=message.at,
        )
        delivery = self.delivery(webhook.tenant, webhook.id, fresh.id)
        if delivery is None:
            delivery = fresh
            self.put_delivery(delivery)
        if delivery.state is DeliveryState.PENDING:
            self.store.put(keys.undelivered(webhook.tenant, webhook.id) + delivery.id, b"")
            try:
                self._schedule.add(Due(webhook.tenant, webhook.id, delivery.id))
            except BrokerUnavailable:  # the dispatcher finds the marker
                _log.warning("webhook.schedule_failed", extra={"webhook_id": webhook.id})
        return delivery

    def test(self, webhook: Webhook) -> Delivery:
        """Enqueue a test message. Raises QueueFull when MOST_PENDING deliveries are pending already."""
        pending = self.store.list(keys.undelivered(webhook.tenant, webhook.id))
        if sum(1 for _ in islice(pending, MOST_PENDING)) == MOST_PENDING:
            raise QueueFull(f"{MOST_PENDING} messages wait for this webhook; see its deliveries.", retry_after=60.0)
        key = secrets.token_hex(16)
        data = {"webhook_id": webhook.id}
        return self.enqueue(webhook, Message(webhook.tenant, WebhookEvent.TEST, time.time(), key, data))

    def delivery(self, tenant: str, webhook_id: str, message_id: str) -> Delivery | None:
        """One delivery, or None."""
        try:
            return load(self.store, _delivery(tenant, webhook_id, message_id), Delivery)
        except ObjectNotFound:
            return None

    def put_delivery(self, delivery: Delivery) -> None:
        """Store the delivery; its marker goes when it is no longer pending."""
        _put(self.store, _delivery(delivery.tenant, delivery.webhook_id, delivery.id), delivery)
        if delivery.state is not DeliveryState.PENDING:
            self.unmark(delivery.tenant, delivery.webhook_id, delivery.id)

    def unmark(self, tenant: str, webhook_id: str, message_id: str) -> None:
        """Remove the marker of a pending delivery."""
        self.store.delete(keys.undelivered(tenant, webhook_id) + message_id)

    def log(self, tenant: str, webhook_id: str, *, limit: int) -> list[Delivery]:
        """The last deliveries, newest first."""
        names = self._names(tenant, webhook_id)[::-1][:limit]
        found = (self.delivery(tenant, webhook_id, name) for name in names)
        return [delivery for delivery in found if delivery]

    def trim_log(self, tenant: str, webhook_id: str) -> None:
        """Delete ended deliveries but the last KEPT_DELIVERIES. Reads names only."""
        names = self._names(tenant, webhook_id)
        if len(names) > KEPT_DELIVERIES:
            prefix = keys.undelivered(tenant, webhook_id)
            pending = {key.removeprefix(prefix) for key in self.store.list(prefix)}
            ended = [name for name in names if name not in pending][:-KEPT_DELIVERIES]
            self.store.delete_all([_delivery(tenant, webhook_id, name) for name in ended])

    def undelivered(self) -> Iterator[Due]:
        """All pending deliveries."""
        for key in self.store.list(keys.UNDELIVERED):
            yield Due(*key.removeprefix(keys.UNDELIVERED).split("/"))

    def _names(self, tenant: str, webhook_id: str) -> list[str]:
        prefix = keys.deliveries(tenant, webhook_id)
        return [key.removeprefix(prefix).removesuffix(".json") for key in self.store.list(prefix)]

    def _ids(self, tenant: str) -> list[str]:
        prefix = keys.webhooks(tenant)
        return [key.removeprefix(prefix).removesuffix(".json") for key in self.store.list(prefix)]


def drop_old(store: Store) -> None:
    """Delete deliveries that ended more than KEPT_SECONDS ago. Reads names only."""
    pending = {key.removeprefix(keys.UNDELIVERED) for key in store.list(keys.UNDELIVERED)}
    for key in list(store.list(keys.DELIVERIES)):
        name = key.removeprefix(keys.DELIVERIES).removesuffix(".json")
        if name not in pending and time_of(name.rpartition("/")[2]) < time.time() - KEPT_SECONDS:
            store.delete(key)


def _delivery(tenant: str, webhook_id: str, message_id: str) -> str:
    return f"{keys.deliveries(tenant, webhook_id)}{message_id}.json"


def _put(store: Store, key: str, record: Record) -> None:
    store.put(key, dump(record), content_type="application/json")
