"""The application: `api.server.app:create_app`, for any ASGI server (`uvicorn --factory api.server.app:create_app`)."""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter
from fastapi import FastAPI

from api.server import errors
from api.server.auth import Authenticator
from api.server.body_limits import BodyLimit
from api.server.event_reader import Feed
from api.server.idempotency import SaveResponses, replayed
from api.server.job_reader import JobReader
from api.server.limits import Limiter, LimitHeaders
from api.server.observability import Metrics, Observe, RequestId
from api.server.openapi import install_openapi
from api.server.pending_responses import Replay
from api.server.routes import (
    batches,
    events,
    generations,
    images,
    jobs,
    photos,
    service,
    subjects,
    usage,
    webhooks,
    weights,
)
from core.jobs.service import Jobs, open_jobs
from core.queue.connection import connect_async
from core.settings import Settings, load_settings
from core.tenants.api_keys import ApiKeys
from core.tenants.idempotency import SavedResponses
from core.webhooks.addresses import BoundedResolver
from core.webhooks.registry import Webhooks
from hyperdreambooth import __version__

LIMIT_SECONDS = 0.25
"""How long Redis may take to count a request: after that it is not counted."""
LOOKUPS = 8
"""Names of webhooks that are looked up at the same time while webhooks are created."""
EXPORTERS = 1
"""Weights that are exported for other programs at the same time: a second or two of a core each, at most."""


def create_app(settings: Settings | None = None, *, job_service: Jobs | None = None) -> FastAPI:
    """The FastAPI application. `settings` default to those of the environment; another `job_service` is for tests.

    Raises:
        SettingsError: the settings are wrong, or would serve other machines without a key.
    """
    settings = settings or load_settings()
    job_service = job_service or open_jobs(settings)
    authenticator = Authenticator(settings, ApiKeys(job_service.archive.store))
    authenticator.refuse_open(settings)
    app = FastAPI(title="HyperDreamBooth", version=__version__, redoc_url=None)
    app.state.settings = settings
    app.state.job_service = job_service
    app.state.authenticator = authenticator
    app.state.limiter = Limiter(settings, partial(connect_async, settings, patience=LIMIT_SECONDS))
    app.state.saved_responses = SavedResponses(job_service.archive.store, job_service.ledger.redis)
    app.state.feed = Feed(partial(connect_async, settings))
    app.state.job_reader = JobReader(job_service.archive, partial(connect_async, settings))
    app.state.metrics = Metrics()
    app.state.decoders = CapacityLimiter(settings.photo_decoders)
    app.state.exporters = CapacityLimiter(EXPORTERS)
    app.state.webhooks = Webhooks(job_service.archive.store, job_service.ledger.redis)
    app.state.resolver = BoundedResolver(LOOKUPS)
    # Routes are tried in turn, and jobs are read most.
    for routes in (jobs, subjects, photos, weights, generations, batches, events, images, webhooks, usage, service):
        app.include_router(routes.router)
    errors.install(app)
    app.add_exception_handler(Replay, replayed)
    install_openapi(app)
    app.add_middleware(SaveResponses)
    app.add_middleware(LimitHeaders)
    app.add_middleware(Observe)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestId)  # outermost: refused bodies have an id, too
    return app
