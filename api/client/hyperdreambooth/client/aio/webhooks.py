"""Webhooks: addresses that the service posts events to."""

from __future__ import annotations

from collections.abc import Sequence

from hyperdreambooth.client.aio.connection import AsyncConnection
from hyperdreambooth.client.refs import WebhookRef
from hyperdreambooth.client.request import answer_as, change, create, get, given, id_of
from hyperdreambooth.schemas import (
    DeliveryAnswer,
    DeliveryList,
    WebhookAnswer,
    WebhookCreated,
    WebhookEventName,
    WebhookList,
)


class AsyncWebhooks(AsyncConnection):
    """The methods for webhooks."""

    async def create_webhook(
        self, url: str, *, events: Sequence[WebhookEventName] | None = None, description: str | None = None
    ) -> WebhookCreated:
        """Have events posted to a public https address; the answer has the `secret` for `verify_webhook`."""
        body = given({"url": url, "events": None if events is None else list(events), "description": description})
        return await self._send(create("webhooks", read=answer_as(WebhookCreated), json=body))

    async def webhooks(self) -> list[WebhookAnswer]:
        """All webhooks, oldest first."""
        return (await self._send(get("webhooks", read=answer_as(WebhookList)))).webhooks

    async def webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """A webhook, without its secret."""
        return await self._send(get("webhooks", id_of(webhook), read=answer_as(WebhookAnswer)))

    async def delete_webhook(self, webhook: WebhookRef) -> None:
        """Have nothing posted any more."""
        await self._send(change("DELETE", "webhooks", id_of(webhook), read=lambda _: None, repeatable=False))

    async def test_webhook(self, webhook: WebhookRef) -> DeliveryAnswer:
        """Have a test message posted now."""
        return await self._send(create("webhooks", id_of(webhook), "test", read=answer_as(DeliveryAnswer)))

    async def rotate_webhook(self, webhook: WebhookRef, *, overlap_hours: int = 24) -> WebhookCreated:
        """Sign with a new secret, which the answer has; the old one counts as well for `overlap_hours` (0 to 168).

        `overlap_hours` 0: others know the old secret.
        """
        params = {"overlap_hours": overlap_hours}
        return await self._send(
            create("webhooks", id_of(webhook), "rotate", read=answer_as(WebhookCreated), params=params)
        )

    async def enable_webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """Have new events posted again, to an address that had answered 410 (Gone)."""
        read = answer_as(WebhookAnswer)
        return await self._send(change("POST", "webhooks", id_of(webhook), "enable", read=read, repeatable=True))

    async def deliveries(self, webhook: WebhookRef, *, limit: int = 20) -> list[DeliveryAnswer]:
        """The newest messages of a webhook, and how each attempt went."""
        read = answer_as(DeliveryList)
        found = await self._send(get("webhooks", id_of(webhook), "deliveries", read=read, params={"limit": limit}))
        return found.deliveries
