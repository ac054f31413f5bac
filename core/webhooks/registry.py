"""Webhooks: where tenants want to be told, what they are told, and how the attempts went. The store's side.

A delivery is a document of its own and, until it is over, an empty marker beside it. Who makes something happen writes
both, before the happening counts as written down: it is told at least once, whoever dies meanwhile. The message's id is
made from what happened, so that noting it again changes nothing, and whoever hears it twice can know.

Telling is left to core/webhooks/. When each delivery is due stands in Redis (schedule.py), and in the document, too.
"""

from __future__ import annotations

import base64
import logging
import secrets
import time
from collections.abc import Iterator
from itertools import islice

from pydantic import Field
from redis import Redis

from core.errors import BrokerUnavailable, ObjectNotFound, QueueFull, TooManyWebhooks, WebhookNotFound
from core.ids import is_id, new_id, time_of
from core.records import DeliveryState, Job, JobKind, JobState, Receipt, Record
from core.storage import Store, keys
from core.tenants.idempotency import blank
from core.webhooks.messages import Delivery, Event, Happening
from core.webhooks.schedule import Due, Schedule

KEPT_DELIVERIES = 100
"""Deliveries that are over, of each webhook."""
KEPT_SECONDS = 72 * 3600
"""How long they are kept at most."""
MOST_WAITING = 100
"""Messages that are due to one webhook, before no test is sent any more."""
MOST_FORMER = 4
"""Replaced secrets of a webhook that still count: each adds a signature to every message."""

_log = logging.getLogger(__name__)


_ENDINGS = {
    JobState.SUCCEEDED: Event.JOB_SUCCEEDED,
    JobState.FAILED: Event.JOB_FAILED,
    JobState.CANCELED: Event.JOB_CANCELED,
}


class FormerSecret(Record):
    """A secret that was replaced; until then (in seconds since 1970) messages are signed with it as well."""

    secret: str = Field(repr=False)
    until: float


class Webhook(Record):
    """Where to tell. `events` None: everything. `secret` is what Standard Webhooks calls it: `whsec_` and base64."""

    id: str
    tenant: str
    url: str = Field(repr=False)
    secret: str = Field(repr=False)
    events: tuple[str, ...] | None = None
    description: str | None = None
    created_at: float
    disabled_at: float | None = None
    former: tuple[FormerSecret, ...] = ()
    """The newest first."""

    def secrets_at(self, at: float) -> list[str]:
        """What a message is signed with at this time: the secret, and those before it that still count."""
        return [self.secret, *(each.secret for each in self.former if each.until > at)]

    def rotated(self, at: float, overlap: float) -> Webhook:
        """The webhook with a new secret; the ones before it count for `overlap` seconds at most from `at` on."""
        until = at + overlap
        former = [(self.secret, until), *((each.secret, min(each.until, until)) for each in self.former)]
        kept = [FormerSecret(secret=secret, until=until) for secret, until in former if until > at]
        return self.model_copy(update={"secret": new_secret(), "former": tuple(kept[:MOST_FORMER])})

    def wants(self, event: Event) -> bool:
        """Whether it is to be told of this."""
        return self.disabled_at is None and (event is Event.TEST or self.events is None or event in self.events)


class Webhooks:
    """The webhooks of all tenants, and their deliveries. Raises StoreUnavailable; Redis may be away."""

    def __init__(self, store: Store, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self.store = store
        self._schedule = Schedule(redis)

    def create(
        self, tenant: str, url: str, events: tuple[str, ...] | None, *, description: str | None, most: int
    ) -> Webhook:
        """A new webhook, with its secret; the tenant may have `most` of them. Raises TooManyWebhooks."""
        webhook = Webhook(
            id=new_id("whk"),
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
        """Write it down."""
        _put(self.store, keys.webhook(webhook.tenant, webhook.id), webhook)

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        """Raises WebhookNotFound."""
        found = self.find(tenant, webhook_id) if is_id(webhook_id, "whk") else None
        if found is None:
            raise WebhookNotFound(f"There is no webhook {webhook_id[:40]}.")
        return found

    def find(self, tenant: str, webhook_id: str) -> Webhook | None:
        """The webhook, or None."""
        try:
            return Webhook.model_validate_json(self.store.get(keys.webhook(tenant, webhook_id)))
        except ObjectNotFound:
            return None

    def all(self, tenant: str) -> Iterator[Webhook]:
        """A tenant's webhooks in the order they were made."""
        for webhook_id in self._ids(tenant):
            if webhook := self.find(tenant, webhook_id):
                yield webhook

    def disable(self, webhook: Webhook) -> None:
        """Send it nothing more, unless it was deleted meanwhile; what else was changed of it meanwhile stays."""
        if found := self.find(webhook.tenant, webhook.id):
            self.put(found.model_copy(update={"disabled_at": time.time()}))

    def enable(self, tenant: str, webhook_id: str) -> Webhook:
        """Send it again what happens from now on. Raises WebhookNotFound."""
        webhook = self.get(tenant, webhook_id).model_copy(update={"disabled_at": None})
        self.put(webhook)
        return webhook

    def rotate(self, tenant: str, webhook_id: str, *, overlap: float) -> Webhook:
        """Give it a new secret; see Webhook.rotated. Raises WebhookNotFound."""
        webhook = self.get(tenant, webhook_id).rotated(time.time(), overlap)
        self.put(webhook)
        return webhook

    def delete(self, tenant: str, webhook_id: str) -> None:
        """Remove it, its secret, and all its deliveries, also those that are due. Raises WebhookNotFound."""
        webhook = self.get(tenant, webhook_id)
        self.store.delete(keys.webhook(tenant, webhook.id))
        blank(self.store, tenant, webhook.id)
        self.sweep(tenant, webhook.id)

    def sweep(self, tenant: str, webhook_id: str) -> None:
        """Remove the deliveries of a webhook that is not there any more."""
        self.store.delete_prefix(keys.deliveries(tenant, webhook_id))
        self.store.delete_prefix(keys.undelivered(tenant, webhook_id))
        try:
            self._schedule.forget(tenant, webhook_id)
        except BrokerUnavailable:
            _log.warning("webhook.left_in_redis", extra={"webhook_id": webhook_id})  # a turn finds nothing to send

    def tell(self, happening: Happening) -> list[Delivery]:
        """Note the happening for every webhook that wants it. Noting it again changes nothing."""
        return [
            self.queue(webhook, happening) for webhook in self.all(happening.tenant) if webhook.wants(happening.event)
        ]

    def queue(self, webhook: Webhook, happening: Happening) -> Delivery:
        """Note the happening for one webhook: from here on it is told at least once."""
        fresh = Delivery(
            id=happening.message_id,
            tenant=webhook.tenant,
            webhook_id=webhook.id,
            type=happening.event,
            body=happening.body,
            created_at=happening.at,
            next_at=happening.at,
        )
        delivery = self.delivery(webhook.tenant, webhook.id, fresh.id)
        if delivery is None:
            delivery = fresh
            self.put_delivery(delivery)
        if delivery.state is DeliveryState.PENDING:
            self.store.put(keys.undelivered(webhook.tenant, webhook.id) + delivery.id, b"")
            try:
                self._schedule.add(Due(webhook.tenant, webhook.id, delivery.id))
            except BrokerUnavailable:
                _log.warning(
                    "delivery.not_scheduled", extra={"webhook_id": webhook.id}
                )  # who delivers finds the marker
        return delivery

    def test(self, webhook: Webhook) -> Delivery:
        """Send a message that says nothing. Raises QueueFull when MOST_WAITING others are due already."""
        waiting = self.store.list(keys.undelivered(webhook.tenant, webhook.id))
        if sum(1 for _ in islice(waiting, MOST_WAITING)) == MOST_WAITING:
            raise QueueFull(f"{MOST_WAITING} messages wait for this webhook; see its deliveries.", retry_after=60.0)
        name = secrets.token_hex(16)
        data = {"webhook_id": webhook.id}
        return self.queue(webhook, Happening(webhook.tenant, Event.TEST, time.time(), name, data))

    def delivery(self, tenant: str, webhook_id: str, message_id: str) -> Delivery | None:
        """One delivery, or None."""
        try:
            return Delivery.model_validate_json(self.store.get(_delivery(tenant, webhook_id, message_id)))
        except ObjectNotFound:
            return None

    def put_delivery(self, delivery: Delivery) -> None:
        """Write down how it stands; once it is over its marker goes."""
        _put(self.store, _delivery(delivery.tenant, delivery.webhook_id, delivery.id), delivery)
        if delivery.state is not DeliveryState.PENDING:
            self.unmark(delivery.tenant, delivery.webhook_id, delivery.id)

    def unmark(self, tenant: str, webhook_id: str, message_id: str) -> None:
        """There is nothing more to do about it."""
        self.store.delete(keys.undelivered(tenant, webhook_id) + message_id)

    def log(self, tenant: str, webhook_id: str, *, limit: int) -> list[Delivery]:
        """The last deliveries, the newest first."""
        names = self._names(tenant, webhook_id)[::-1][:limit]
        found = (self.delivery(tenant, webhook_id, name) for name in names)
        return [delivery for delivery in found if delivery]

    def shorten_log(self, tenant: str, webhook_id: str) -> None:
        """Of the deliveries that are over keep the last KEPT_DELIVERIES. Reads names only."""
        names = self._names(tenant, webhook_id)
        if len(names) > KEPT_DELIVERIES:
            prefix = keys.undelivered(tenant, webhook_id)
            pending = {key.removeprefix(prefix) for key in self.store.list(prefix)}
            for name in [name for name in names if name not in pending][:-KEPT_DELIVERIES]:
                self.store.delete(_delivery(tenant, webhook_id, name))

    def undelivered(self) -> Iterator[Due]:
        """Everything that is not over."""
        for key in self.store.list(keys.UNDELIVERED):
            yield Due(*key.removeprefix(keys.UNDELIVERED).split("/"))

    def _names(self, tenant: str, webhook_id: str) -> list[str]:
        prefix = keys.deliveries(tenant, webhook_id)
        return [key.removeprefix(prefix).removesuffix(".json") for key in self.store.list(prefix)]

    def _ids(self, tenant: str) -> list[str]:
        prefix = keys.webhooks(tenant)
        return [key.removeprefix(prefix).removesuffix(".json") for key in self.store.list(prefix)]


def tell_ended(store: Store, redis: Redis, job: Job) -> None:
    """Tell that a job is over, and, when it made somebody ready, that as well. Raises StoreUnavailable."""
    at = job.created_at if job.finished_at is None else job.finished_at
    data = {"job_id": job.id, "subject_id": job.subject_id, "kind": job.kind.value, "status": job.state.value}
    webhooks = Webhooks(store, redis)
    webhooks.tell(Happening(job.tenant, _ENDINGS[job.state], at, job.id, data))
    if job.kind is JobKind.PERSONALIZE and job.state is JobState.SUCCEEDED:
        ready = {"subject_id": job.subject_id, "job_id": job.id, "status": "ready"}
        webhooks.tell(Happening(job.tenant, Event.SUBJECT_READY, at, job.id, ready))


def tell_deleted(store: Store, redis: Redis, receipt: Receipt) -> None:
    """Tell that a subject is no more. Raises StoreUnavailable."""
    data = {"subject_id": receipt.subject_id, "status": "deleted"}
    happening = Happening(receipt.tenant, Event.SUBJECT_DELETED, receipt.deleted_at, receipt.subject_id, data)
    Webhooks(store, redis).tell(happening)


def tell_batch(store: Store, redis: Redis, tenant: str, batch_id: str, at: float, *, canceled: bool) -> None:
    """Tell that all items of a batch are over. Raises StoreUnavailable."""
    event = Event.BATCH_CANCELED if canceled else Event.BATCH_COMPLETED
    data = {"batch_id": batch_id, "status": "canceled" if canceled else "completed"}
    Webhooks(store, redis).tell(Happening(tenant, event, at, batch_id, data))


def drop_old(store: Store) -> None:
    """Forget deliveries that have been over for long. Reads names only."""
    pending = {key.removeprefix(keys.UNDELIVERED) for key in store.list(keys.UNDELIVERED)}
    for key in list(store.list(keys.DELIVERIES)):
        name = key.removeprefix(keys.DELIVERIES).removesuffix(".json")
        if name not in pending and time_of(name.rpartition("/")[2]) < time.time() - KEPT_SECONDS:
            store.delete(key)


def new_secret() -> str:
    """A secret to sign with: 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _delivery(tenant: str, webhook_id: str, message_id: str) -> str:
    return f"{keys.deliveries(tenant, webhook_id)}{message_id}.json"


def _put(store: Store, key: str, record: Record) -> None:
    store.put(key, record.model_dump_json().encode(), content_type="application/json")
