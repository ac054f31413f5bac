"""Usage: what a tenant had done, and what all of them do at the moment."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.server.auth import Tenant, require_local_or_key
from api.server.dependencies import MetricsDep, ServicesDep
from api.server.errors import COMMON, problems
from api.server.query import KnownParameters
from core import errors
from core.jobs.service import JobService
from core.records import JobKind, JobState
from core.tenants.usage import DaySum
from hyperdreambooth import schemas

router = APIRouter(tags=["service"], responses=COMMON)

MAX_DAYS = 92
_METRICS = {"schema": {"type": "string"}, "example": 'hdb_jobs_queued{kind="generate"} 3.0\n'}


@router.get("/v1/usage", summary="Read what was used", responses=problems(errors.InvalidInput, errors.StoreUnavailable))
async def read_usage(
    request: Request,
    services: ServicesDep,
    tenant: Tenant,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="How many days back, today included (UTC).")] = 30,
) -> schemas.UsageAnswer:
    """The jobs that ended, by kind and state, the pictures they made and the seconds they took: in all, and by day.

    Days without anything are left out. Subjects that were deleted still count; nothing here names them. `live` is what
    waits and runs now, and null while that cannot be known.
    """
    today = datetime.now(UTC).date()
    limiter = request.app.state.usage_readers
    found = await to_thread.run_sync(partial(services.usage.sums, tenant, days=days), limiter=limiter)
    live = await to_thread.run_sync(_live, services.jobs, tenant, limiter=limiter)
    return schemas.UsageAnswer(
        tenant=tenant,
        first_day=today - timedelta(days=days - 1),
        last_day=today,
        total=_sum(found),
        days=[schemas.DayUsage(day=each.day, **_sum([each]).model_dump()) for each in found],
        live=live,
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
def read_metrics(services: ServicesDep, metrics: MetricsDep) -> Response:
    """Queue lengths, running jobs, overdue erasures, requests and latencies. For this machine, or with a key."""
    lengths, overdue = None, None
    with contextlib.suppress(errors.BrokerUnavailable):
        lengths, overdue = services.jobs.queue_lengths(), len(services.failures.overdue())
    return Response(metrics.text(lengths, overdue), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _sum(found: Sequence[DaySum]) -> schemas.Usage:
    jobs: dict[str, dict[str, int]] = {}
    for (kind, state), count in sum((each.jobs for each in found), Counter[tuple[JobKind, JobState]]()).items():
        jobs.setdefault(kind.value, {})[state.value] = count
    return schemas.Usage(
        jobs=jobs,
        pictures=sum(each.pictures for each in found),
        seconds=round(sum(each.seconds for each in found), 3),
    )


def _live(jobs: JobService, tenant: str) -> dict[str, int] | None:
    try:
        return jobs.live_counts(tenant)
    except errors.BrokerUnavailable:
        return None
