"""The service itself: is it alive, is it ready, what does it run."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from api.server.auth import Tenant
from api.server.dependencies import JobService, ServiceSettings
from api.server.errors import COMMON, problems
from api.server.query import KnownParameters
from core.errors import InvalidInput
from core.hyperdreambooth.model.config import BundleConfig
from hyperdreambooth import schemas

router = APIRouter(tags=["service"])

UNREADY = {"status": "unready", "checks": {"redis": "broker-unavailable", "store": "ok"}}
"""An answer of `/readyz` that is no good one."""


@router.get(
    "/healthz",
    summary="Is the process alive",
    dependencies=[KnownParameters],
    responses=problems(InvalidInput),
)
async def health() -> schemas.Health:
    """Asks nothing and nobody: restart the process when this does not answer."""
    return schemas.Health()


@router.get(
    "/readyz",
    summary="Can requests be served",
    dependencies=[KnownParameters],
    responses={
        **problems(InvalidInput),
        503: {
            "description": "Something that is needed does not answer.",
            "model": schemas.Readiness,
            "content": {"application/json": {"example": UNREADY}},
        },
    },
)
def ready(job_service: JobService, response: Response) -> schemas.Readiness:
    """Asks Redis and the store, and says which of them does not answer."""
    checks = job_service.check()
    if all(answer == "ok" for answer in checks.values()):
        return schemas.Readiness(status="ready", checks=checks)
    response.status_code = 503
    response.headers["Retry-After"] = "2"
    return schemas.Readiness(status="unready", checks=checks)


@router.get("/v1/models", summary="List models", responses=COMMON)
def list_models(settings: ServiceSettings, tenant: Tenant) -> schemas.ModelList:  # noqa: ARG001  (only callers with a key)
    """The bundle that this service runs, with what it does where a request leaves something out."""
    folder = Path(settings.bundle)
    description = folder / "bundle.json"
    config = BundleConfig.from_json(description.read_text()) if description.is_file() else None
    known = config or BundleConfig(name=settings.bundle.rstrip("/").rpartition("/")[2])
    has_hypernetwork = (folder / "hypernetwork").is_dir()
    finetune = known.finetune
    model = schemas.ModelAnswer(
        id=known.name,
        resolution=config.resolution if config else None,
        class_noun=known.class_noun,
        has_hypernetwork=has_hypernetwork,
        steps=known.sampling.steps,
        guidance_scale=known.sampling.guidance_scale,
        personalize_steps=finetune.steps_taken(from_zero=finetune.starts_from_zero(has_hypernetwork=has_hypernetwork)),
    )
    return schemas.ModelList(models=[model])
