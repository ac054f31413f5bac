"""Usage: what a tenant had done, and what all of them do at the moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.server.auth import Tenant, require_local_or_key
from api.server.dependencies import JobService, ServiceMetrics
from api.server.errors import COMMON, problems
from api.server.query import KnownParameters
from core import errors
from core.records import JobKind
from core.tenants.usage import Ended, ended
from hyperdreambooth import schemas

router = APIRouter(tags=["service"], responses=COMMON)

MAX_DAYS = 92
_METRICS = {"schema": {"type": "string"}, "example": 'hdb_jobs_queued{kind="generate"} 3.0\n'}


@router.get("/v1/usage", summary="Read what was used", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
def read_usage(
    job_service: JobService,
    tenant: Tenant,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="How many days back, today included (UTC).")] = 30,
) -> schemas.UsageAnswer:
    """The jobs that ended, by kind and state, the pictures they made and the seconds they took: in all, and by day.

    Days without anything are left out. Subjects that were deleted still count; nothing here names them. `live` is what
    waits and runs now, and null while that cannot be known.
    """
    today = datetime.now(UTC).date()
    found = ended(job_service.archive.store, tenant, days=days)
    by_day = [(day, list(jobs)) for day, jobs in groupby(found, key=lambda each: each.day)]
    return schemas.UsageAnswer(
        tenant=tenant,
        first_day=today - timedelta(days=days - 1),
        last_day=today,
        total=_sum(found),
        days=[schemas.DayUsage(day=day, **_sum(jobs).model_dump()) for day, jobs in by_day],
        live=_live(job_service, tenant),
    )


@router.get(
    "/metrics",
    summary="Read the metrics",
    dependencies=[Depends(require_local_or_key), KnownParameters],
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": _METRICS}},
        **problems(errors.InvalidInput),
    },
)
def read_metrics(job_service: JobService, metrics: ServiceMetrics) -> Response:
    """Queue lengths, running jobs, requests and their latencies by route. For this machine, or with a key."""
    try:
        lengths = job_service.queue_lengths()
    except errors.BrokerUnavailable:
        lengths = None
    return Response(metrics.text(lengths), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _sum(found: Sequence[Ended]) -> schemas.Usage:
    jobs = {kind.value: Counter(each.state.value for each in found if each.kind is kind) for kind in JobKind}
    return schemas.Usage(
        jobs={kind: dict(states) for kind, states in jobs.items() if states},
        pictures=sum(each.pictures for each in found),
        seconds=round(sum(each.seconds for each in found), 3),
    )


def _live(job_service: JobService, tenant: str) -> dict[str, int] | None:
    try:
        return job_service.ledger.live(tenant)
    except errors.BrokerUnavailable:
        return None
