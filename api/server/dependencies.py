"""What routes depend on: the job service, the settings, and so on. Tests override them (`dependency_overrides`)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.server.event_reader import Feed
from api.server.observability import Metrics
from api.server.uploads import FaceFinder
from core.jobs.service import Jobs
from core.settings import Settings
from core.webhooks.addresses import Resolver
from core.webhooks.registry import Webhooks


async def the_job_service(request: Request) -> Jobs:
    """The job service of this application."""
    job_service: Jobs = request.app.state.job_service
    return job_service


async def the_settings(request: Request) -> Settings:
    """The settings of this application."""
    settings: Settings = request.app.state.settings
    return settings


async def the_face_finder() -> FaceFinder:
    """What finds and checks the face in a photo."""
    from core.hyperdreambooth.faces.quality import find_face  # noqa: PLC0415  (its runtime takes a second to load)

    return find_face


async def the_metrics(request: Request) -> Metrics:
    """The metrics of this application."""
    metrics: Metrics = request.app.state.metrics
    return metrics


async def the_webhooks(request: Request) -> Webhooks:
    """The webhooks of this application."""
    webhooks: Webhooks = request.app.state.webhooks
    return webhooks


async def the_resolver(request: Request) -> Resolver:
    """What looks up the names of webhooks."""
    resolver: Resolver = request.app.state.resolver
    return resolver


async def the_request_id(request: Request) -> str:
    """The id the middleware gave to this request."""
    return str(request.state.request_id)


async def the_feed(request: Request) -> Feed:
    """What reads the events of jobs for this application."""
    feed: Feed = request.app.state.feed
    return feed


JobService = Annotated[Jobs, Depends(the_job_service)]
ServiceSettings = Annotated[Settings, Depends(the_settings)]
Finder = Annotated[FaceFinder, Depends(the_face_finder)]
RequestIdOf = Annotated[str, Depends(the_request_id)]
EventFeed = Annotated[Feed, Depends(the_feed)]
TheWebhooks = Annotated[Webhooks, Depends(the_webhooks)]
NameResolver = Annotated[Resolver, Depends(the_resolver)]
ServiceMetrics = Annotated[Metrics, Depends(the_metrics)]
