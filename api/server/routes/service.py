"""The service itself: is it alive, is it ready, what does it run."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from api.server.auth import Tenant
from api.server.dependencies import ServicesDep, SettingsDep
from api.server.errors import COMMON, problems
from api.server.model import Model, ModelDep
from api.server.model_facts import attributes_of, sample_of, styles_of, times_of
from api.server.query import KnownParameters
from api.server.readiness import Readiness as ReadinessProbe
from api.server.responses import NOT_MODIFIED, cacheable, preferred
from core.errors import ImageNotFound, InvalidInput, StoreUnavailable
from hyperdreambooth import schemas

router = APIRouter(tags=["service"])

UNREADY = {
    "status": "unready",
    "checks": {"redis": "ok", "store": "ok", "workers": "none-loaded", "erasures": "ok"},
}
"""An answer of `/readyz` that is no good one."""


SAMPLE_KINDS = ("image/webp", "application/octet-stream")
"""What a sample is sent as; clients made from the OpenAPI document read the second."""


@router.get(
    "/healthz",
    summary="Is the process alive",
    dependencies=[KnownParameters],
    responses=problems(InvalidInput),
)
async def health() -> schemas.Health:
    """Reads nothing: restart the process when this does not answer."""
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
async def ready(
    request: Request,
    response: Response,
    exclude: Annotated[Literal["workers"] | None, Query(description="What does not count here.")] = None,
) -> schemas.Readiness:
    """Asks Redis and the store, whether they answer and take writes, and whether a worker has loaded its model.

    Without one jobs are accepted and wait: a load balancer asks with `?exclude=workers`. `erasures` is `overdue` when
    photos, weights or pictures that are to go have not for five minutes: an alarm, but requests are served.
    """
    readiness: ReadinessProbe = request.app.state.readiness
    checks = await readiness.checks()
    if all(answer == "ok" for name, answer in checks.items() if name not in ("erasures", exclude)):
        return schemas.Readiness(status="ready", checks=checks)
    response.status_code = 503
    response.headers["Retry-After"] = "2"
    return schemas.Readiness(status="unready", checks=checks)


@router.get("/v1/models", summary="List models", responses=COMMON | problems(StoreUnavailable))
def list_models(source: ModelDep, settings: SettingsDep, services: ServicesDep, tenant: Tenant) -> schemas.ModelList:
    """The bundle that this service runs, its limits, and what it does where a request leaves something out."""
    model = source()
    known, described = model.config, model.description
    has_hypernetwork = bool(described and described.has_hypernetwork)
    finetune = known.finetune
    answer = schemas.ModelAnswer(
        id=model.name,
        resolution=known.resolution if described else None,
        class_noun=known.class_noun,
        has_hypernetwork=has_hypernetwork,
        steps=known.sampling.steps,
        guidance_scale=known.sampling.guidance_scale,
        personalize_steps=finetune.steps_taken(from_zero=finetune.starts_from_zero(has_hypernetwork=has_hypernetwork)),
        limits=_limits(model),
        styles=list(styles_of(settings.bundle)),
        attributes=list(attributes_of(settings.bundle, known.attributes)),
        seconds=times_of(services.jobs, tenant),
    )
    return schemas.ModelList(models=[answer])


def _limits(model: Model) -> schemas.ModelLimits:
    return schemas.ModelLimits(
        side_multiple=model.sides.step,
        side_min=model.sides[0],
        side_max=model.sides[-1],
        prompt_tokens=model.prompts.length if model.prompts else None,
        prompt_characters=schemas.MAX_PROMPT,
        images=schemas.MAX_IMAGES,
        steps=schemas.MAX_STEPS,
        guidance_scale_min=schemas.MIN_GUIDANCE,
        guidance_scale_max=schemas.MAX_GUIDANCE,
        seed=schemas.MAX_SEED,
        blend=schemas.MAX_BLEND,
    )


@router.get(
    "/v1/models/{model_id}/samples/{name}",
    summary="Download a sample of a style",
    response_class=Response,
    responses={
        200: {
            "description": "A picture that the model made.",
            "headers": {"ETag": {"description": "The picture's hash.", "schema": {"type": "string"}}},
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in SAMPLE_KINDS},
        },
        **NOT_MODIFIED,
        **COMMON,
        **problems(ImageNotFound, InvalidInput),
    },
)
def read_sample(
    model_id: str,
    name: str,
    settings: SettingsDep,
    tenant: Tenant,  # noqa: ARG001  (only callers with a key)
    accept: Annotated[str, Header(description="`application/octet-stream` for the same file under that name.")] = "*/*",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """What the model made of a style or word that it names; the person in it does not exist."""
    sample = sample_of(settings.bundle, model_id, name)
    if sample is None:
        raise ImageNotFound(f"The model {model_id[:40]} has no sample {name[:40]}.")
    kind = preferred(accept, SAMPLE_KINDS)
    return cacheable(Response(sample, headers={"Vary": "Accept"}, media_type=kind), if_none_match)
