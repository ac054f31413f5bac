"""The application: `api.server.app:create_app`, for any ASGI server.

`uvicorn --factory --no-proxy-headers api.server.app:create_app`; `python -m api` does that and more.
"""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp

from api.server import errors
from api.server.auth import Authenticate, open_to
from api.server.authenticator import Authenticator
from api.server.body_limits import BodyLimit
from api.server.decoding.decoder import PhotoDecoder
from api.server.early_answers import EarlyAnswers
from api.server.event_reader import Feed
from api.server.idempotency import replayed
from api.server.job_reader import JobReader
from api.server.limits import Limiter, LimitHeaders
from api.server.model import CurrentModel
from api.server.model_facts import work_model
from api.server.observability import Metrics, Observe, RequestId
from api.server.openapi import install_openapi
from api.server.pending_responses import Replay
from api.server.public_address import PublicAddress
from api.server.readiness import Readiness
from api.server.routes import (
    batches,
    events,
    generations,
    images,
    jobs,
    packs,
    pages,
    photos,
    service,
    studio,
    subjects,
    usage,
    webhooks,
    weights,
)
from api.server.security_headers import SecurityHeaders
from core.monitoring import ServiceCollector
from core.queue.connection import connect_async
from core.services import Services, open_services
from core.settings import Settings, load_settings
from core.tenants.api_keys import ApiKeys
from core.tenants.idempotency import SavedResponses
from core.webhooks.addresses import BoundedResolver
from hyperdreambooth import __version__

LIMIT_SECONDS = 0.25
"""How long Redis may take to count a request: after that it is not counted."""
LOOKUPS = 8
"""Names of webhooks that are looked up at the same time while webhooks are created."""
USAGE_READERS = 4
"""Threads that read usage, which may have to be summed up anew: other requests must not wait for them."""
EXPORTERS = 1
"""Weights that are exported for other programs at the same time: a second or two of a core each, at most."""
_ROUTES = (
    jobs,
    subjects,
    photos,
    weights,
    generations,
    batches,
    packs,
    events,
    images,
    webhooks,
    usage,
    service,
    studio,
    pages,
)
"""They are tried in turn, and jobs are read most."""


class _Application(FastAPI):
    """Adds the headers of security outside of all middleware: the answer to a mistake of ours has them, too."""

    def build_middleware_stack(self) -> ASGIApp:
        """See Starlette."""
        return SecurityHeaders(super().build_middleware_stack())


def create_app(settings: Settings | None = None, *, services: Services | None = None) -> FastAPI:
    """The FastAPI application. `settings` default to those of the environment; other `services` are for tests.

    Raises:
        SettingsError: the settings are wrong, or would serve other machines without a key.
    """
    settings = settings or load_settings()
    services = services or open_services(settings, work_of=work_model(settings.bundle).of)
    authenticator = Authenticator(settings, ApiKeys(services.store))
    authenticator.refuse_open(open_to(settings))
    app = _Application(
        title="HyperDreamBooth",
        version=__version__,
        openapi_url=None,  # routes/pages.py
        redirect_slashes=False,  # errors.py, for the public address
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    app.state.settings = settings
    app.state.services = services
    app.state.authenticator = authenticator
    app.state.limiter = Limiter(settings, partial(connect_async, settings, patience=LIMIT_SECONDS))
    app.state.work_model = work_model(settings.bundle)
    app.state.saved_responses = SavedResponses(services.store, services.redis, services.cipher)
    app.state.feed = Feed(partial(connect_async, settings))
    app.state.job_reader = JobReader(services.jobs, partial(connect_async, settings))
    app.state.metrics = Metrics(ServiceCollector(services))
    app.state.model = CurrentModel(settings.bundle, services.models)
    app.state.decoder = PhotoDecoder()
    app.state.decoders = CapacityLimiter(settings.photo_decoders)
    app.state.usage_readers = CapacityLimiter(USAGE_READERS)
    app.state.readiness = Readiness(services.check)
    app.state.exporters = CapacityLimiter(EXPORTERS)
    app.state.resolver = BoundedResolver(LOOKUPS)
    for routes in _ROUTES:
        app.include_router(routes.router)
    errors.install(app)
    app.add_exception_handler(Replay, replayed)
    install_openapi(app)
    # The last one sees a request first: bodies are limited, and read, once their sender is known.
    for middleware in (BodyLimit, Authenticate, LimitHeaders, Observe, EarlyAnswers):
        app.add_middleware(middleware)
    app.add_middleware(PublicAddress, settings=settings)
    app.add_middleware(RequestId)
    return app
