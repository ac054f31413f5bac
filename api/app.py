"""The application: `api.app:create_app`, for any ASGI server (`uvicorn --factory api.app:create_app`)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from anyio import CapacityLimiter
from fastapi import FastAPI

from api import errors
from api.auth import refuse_open_door
from api.middleware import BodyLimit, RequestId
from api.openapi import install_openapi
from api.routes import generations, images, jobs, service, subjects
from core.jobs import Jobs, open_jobs
from core.settings import Settings, load_settings

DECODERS = 2
"""Photos that are decoded at the same time: 25 megapixels take 75 MB and more, each."""


def create_app(settings: Settings | None = None, *, desk: Jobs | None = None) -> FastAPI:
    """The service. Without settings they come from the environment; another `desk` is for tests.

    Raises:
        SettingsError: the settings are wrong, or would leave the door open.
    """
    settings = settings or load_settings()
    refuse_open_door(settings)
    app = FastAPI(title="HyperDreamBooth", version=_version(), redoc_url=None)
    app.state.settings = settings
    app.state.desk = desk or open_jobs(settings)
    app.state.decoders = CapacityLimiter(DECODERS)
    for routes in (subjects, generations, jobs, images, service):
        app.include_router(routes.router)
    errors.install(app)
    install_openapi(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestId)  # outermost: refused bodies have an id, too
    return app


def _version() -> str:
    try:
        return version("hyperdreambooth")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
