"""What routes depend on: the services, the settings, and so on. Tests override them (`dependency_overrides`)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.server.checked_photos import PhotoChecker
from api.server.event_reader import Feed
from api.server.observability import Metrics
from api.server.pending_responses import ids_of
from core.batches.service import BatchService
from core.ids import Ids
from core.jobs.service import JobService
from core.services import Services
from core.settings import Settings
from core.subjects.service import SubjectService
from core.webhooks.addresses import Resolver
from core.webhooks.registry import Webhooks


async def the_services(request: Request) -> Services:
    """All services of this application."""
    services: Services = request.app.state.services
    return services


async def the_jobs(request: Request) -> JobService:
    """The jobs of this application."""
    services: Services = request.app.state.services
    return services.jobs


async def the_subjects(request: Request) -> SubjectService:
    """The subjects of this application."""
    services: Services = request.app.state.services
    return services.subjects


async def the_batches(request: Request) -> BatchService:
    """The batches of this application."""
    services: Services = request.app.state.services
    return services.batches


async def the_settings(request: Request) -> Settings:
    """The settings of this application."""
    settings: Settings = request.app.state.settings
    return settings


async def the_photo_checker() -> PhotoChecker:
    """What finds and checks the face in a photo."""
    from core.photos.check import check_photo  # noqa: PLC0415  (its runtime takes a second to load)

    return check_photo


async def the_metrics(request: Request) -> Metrics:
    """The metrics of this application."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def the_webhooks(request: Request) -> Webhooks:
    """The webhooks of this application."""
    services: Services = request.app.state.services
    return services.webhooks


async def the_resolver(request: Request) -> Resolver:
    """The resolver of webhook names."""
    resolver: Resolver = request.app.state.resolver
    return resolver


async def the_request_id(request: Request) -> str:
    """The id the middleware gave to this request."""
    return str(request.state.request_id)


async def the_new_ids(request: Request) -> Ids:
    """The ids of what the request makes."""
    return ids_of(request)


async def the_feed(request: Request) -> Feed:
    """What reads the events of jobs for this application."""
    feed: Feed = request.app.state.feed
    return feed


ServicesDep = Annotated[Services, Depends(the_services)]
JobServiceDep = Annotated[JobService, Depends(the_jobs)]
SubjectServiceDep = Annotated[SubjectService, Depends(the_subjects)]
BatchServiceDep = Annotated[BatchService, Depends(the_batches)]
SettingsDep = Annotated[Settings, Depends(the_settings)]
PhotoCheckerDep = Annotated[PhotoChecker, Depends(the_photo_checker)]
RequestIdDep = Annotated[str, Depends(the_request_id)]
NewIdsDep = Annotated[Ids, Depends(the_new_ids)]
FeedDep = Annotated[Feed, Depends(the_feed)]
WebhooksDep = Annotated[Webhooks, Depends(the_webhooks)]
ResolverDep = Annotated[Resolver, Depends(the_resolver)]
MetricsDep = Annotated[Metrics, Depends(the_metrics)]
