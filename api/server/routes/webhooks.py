"""Webhooks: addresses of a tenant that its events are sent to."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Query, Response

from api.server.auth import Tenant
from api.server.dependencies import NewIdsDep, ResolverDep, SettingsDep, WebhooksDep
from api.server.errors import COMMON, MalformedRequest, problems
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.requests import JsonOnly
from api.server.webhook_responses import created_answer, delivery_answer, webhook_answer
from core import errors
from core.settings import Settings
from core.webhooks.addresses import Resolver, check_url
from hyperdreambooth.schemas.webhooks import (
    DeliveryAnswer,
    DeliveryList,
    WebhookAnswer,
    WebhookCreated,
    WebhookList,
    WebhookRequest,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=COMMON, route_class=IdempotentRoute)

RESOLVE_SECONDS = 5.0


@router.post(
    "",
    status_code=201,
    summary="Make a webhook",
    dependencies=[JsonOnly, Idempotent],
    responses={
        201: {"headers": {"Location": {"description": "The webhook.", "schema": {"type": "string"}}}},
        **problems(
            MalformedRequest,
            errors.TooManyWebhooks,
            errors.UnsupportedMediaType,
            errors.InvalidInput,
            errors.WebhookRefused,
            errors.Unavailable,
            errors.StoreUnavailable,
        ),
    },
)
async def create_webhook(
    body: WebhookRequest,
    response: Response,
    settings: SettingsDep,
    webhooks: WebhooksDep,
    resolve: ResolverDep,
    tenant: Tenant,
    ids: NewIdsDep,
) -> WebhookCreated:
    """From now on what happens is posted to the `url`, signed (Standard Webhooks) with the `secret` of this answer.

    The secret is returned here only. The name of the `url` must have public addresses only; it is looked up and checked
    again at every delivery. What does not get through is tried again for 24 hours.
    """
    await _refuse_private(body.url, resolve, settings)
    events = None if body.events is None else tuple(dict.fromkeys(body.events))
    make = partial(webhooks.create, tenant, body.url, events, description=body.description, ids=ids)
    webhook = await to_thread.run_sync(partial(make, most=settings.webhooks_per_tenant))
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    return created_answer(webhook)


@router.get("", summary="List webhooks", responses=problems(errors.StoreUnavailable))
def list_webhooks(webhooks: WebhooksDep, tenant: Tenant) -> WebhookList:
    """All of them, oldest first, without their secrets."""
    return WebhookList(webhooks=[webhook_answer(webhook) for webhook in webhooks.all(tenant)])


@router.get(
    "/{webhook_id}",
    summary="Read a webhook",
    responses=problems(errors.WebhookNotFound, errors.StoreUnavailable),
)
def read_webhook(webhook_id: str, webhooks: WebhooksDep, tenant: Tenant) -> WebhookAnswer:
    """Its address and its events, without its secret."""
    return webhook_answer(webhooks.get(tenant, webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    responses={
        204: {"description": "It is deleted."},
        **problems(errors.WebhookNotFound, errors.StoreUnavailable),
    },
)
def delete_webhook(webhook_id: str, webhooks: WebhooksDep, tenant: Tenant) -> None:
    """Nothing more is sent, also not what was due; its secret and its deliveries are forgotten."""
    webhooks.delete(tenant, webhook_id)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    summary="Send a test message",
    dependencies=[Idempotent],
    responses=problems(errors.WebhookNotFound, errors.WebhookDisabled, errors.QueueFull, errors.StoreUnavailable),
)
def test_webhook(webhook_id: str, webhooks: WebhooksDep, tenant: Tenant) -> DeliveryAnswer:
    """A `webhook.test` is sent like everything else: signed, and again if need be. The deliveries tell how it went."""
    webhook = webhooks.get(tenant, webhook_id)
    if webhook.disabled_at is not None:
        raise errors.WebhookDisabled("Its address said 410 (Gone): enable the webhook, when that is put right.")
    return delivery_answer(webhooks.test(webhook))


@router.post(
    "/{webhook_id}/rotate",
    summary="Change a webhook's secret",
    dependencies=[Idempotent],
    responses=problems(errors.WebhookNotFound, errors.InvalidInput, errors.StoreUnavailable),
)
def rotate_secret(
    webhook_id: str,
    webhooks: WebhooksDep,
    tenant: Tenant,
    overlap_hours: Annotated[
        int, Query(ge=0, le=168, description="How long the old secret counts as well; 0 when others know it.")
    ] = 24,
) -> WebhookCreated:
    """From now on messages are signed with the `secret` of this answer, which is returned here only.

    For `overlap_hours` they carry a signature with the old secret as well, so that the receiver can change over in its
    own time. Secrets from before that count no longer than the old one, and at most the last four of them.
    """
    return created_answer(webhooks.rotate(tenant, webhook_id, overlap=3600.0 * overlap_hours))


@router.post(
    "/{webhook_id}/enable",
    summary="Enable a webhook again",
    responses=problems(errors.WebhookNotFound, errors.StoreUnavailable),
)
def enable_webhook(webhook_id: str, webhooks: WebhooksDep, tenant: Tenant) -> WebhookAnswer:
    """After a 410 (Gone): what happens from now on is sent again, what was dropped is not.

    A webhook that is not disabled stays as it is.
    """
    return webhook_answer(webhooks.enable(tenant, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    summary="List a webhook's deliveries",
    responses=problems(errors.WebhookNotFound, errors.InvalidInput, errors.StoreUnavailable),
)
def list_deliveries(
    webhook_id: str,
    webhooks: WebhooksDep,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
) -> DeliveryList:
    """The newest deliveries: each attempt with its status code, and when the next one is.

    Of those that are over the last 100 are kept, for 72 hours at most.
    """
    webhook = webhooks.get(tenant, webhook_id)
    return DeliveryList(deliveries=[delivery_answer(each) for each in webhooks.log(tenant, webhook.id, limit=limit)])


async def _refuse_private(url: str, resolve: Resolver, settings: Settings) -> None:
    """Raises WebhookRefused, also when the name's servers take too long; their thread is left to itself then."""
    check = partial(check_url, url, resolve, allow_private=settings.webhooks_allow_private)
    try:
        with anyio.fail_after(RESOLVE_SECONDS):
            await to_thread.run_sync(check, abandon_on_cancel=True)
    except TimeoutError:
        raise errors.WebhookRefused("Its name could not be looked up in time; try again.", field="url") from None
