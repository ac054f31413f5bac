"""Packs: named lists of prompts that run as one batch."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from api.server.auth import Tenant
from api.server.dependencies import NewIdsDep, ServicesDep, SettingsDep
from api.server.errors import COMMON, MalformedRequest, problems
from api.server.idempotency import Idempotent, IdempotentRoute
from api.server.model_facts import model_packs
from api.server.requests import JsonOnly
from core import errors
from core.batches.packs import Pack
from hyperdreambooth import schemas

router = APIRouter(prefix="/v1/packs", tags=["packs"], responses=COMMON, route_class=IdempotentRoute)


@router.get("", summary="List packs", responses=problems(errors.StoreUnavailable))
def list_packs(services: ServicesDep, settings: SettingsDep, tenant: Tenant) -> schemas.PackList:
    """The packs that come with the model, then your own, oldest first."""
    own = [_answer(pack) for pack in services.packs.all(tenant)]
    return schemas.PackList(packs=[*model_packs(settings.bundle), *own])


@router.post(
    "",
    status_code=201,
    summary="Make a pack",
    dependencies=[JsonOnly, Idempotent],
    responses={
        201: {"headers": {"Location": {"description": "The pack.", "schema": {"type": "string"}}}},
        **problems(MalformedRequest, errors.UnsupportedMediaType, errors.InvalidInput, errors.StoreUnavailable),
    },
)
def create_pack(
    body: schemas.PackRequest, response: Response, services: ServicesDep, tenant: Tenant, ids: NewIdsDep
) -> schemas.PackAnswer:
    """Keeps a list of prompts under a name. Send its prompts as those of a batch to have their pictures made."""
    pack = services.packs.create(tenant, body.name, tuple(body.prompts), ids)
    response.headers["Location"] = f"/v1/packs/{pack.id}"
    return _answer(pack)


@router.get(
    "/{pack_id}",
    summary="Read a pack",
    responses=problems(errors.PackNotFound, errors.StoreUnavailable),
)
def read_pack(pack_id: str, services: ServicesDep, settings: SettingsDep, tenant: Tenant) -> schemas.PackAnswer:
    """Its name and its prompts."""
    of_model = next((pack for pack in model_packs(settings.bundle) if pack.id == pack_id), None)
    return of_model or _answer(services.packs.get(tenant, pack_id))


@router.delete(
    "/{pack_id}",
    status_code=204,
    summary="Delete a pack",
    responses={
        204: {"description": "It is deleted."},
        **problems(errors.PackNotFound, errors.StoreUnavailable),
    },
)
def delete_pack(pack_id: str, services: ServicesDep, tenant: Tenant) -> None:
    """Forgets it; pictures and batches that were made with it stay. Those of the model cannot be deleted."""
    services.packs.delete(tenant, pack_id)


def _answer(pack: Pack) -> schemas.PackAnswer:
    created_at = datetime.fromtimestamp(pack.created_at, UTC)
    return schemas.PackAnswer(
        id=pack.id, name=pack.name, prompts=list(pack.prompts), of_model=False, created_at=created_at
    )
