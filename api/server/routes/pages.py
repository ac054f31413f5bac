"""What a browser opens beside the studio: `/docs` with Swagger UI served from here, and the OpenAPI document.

The pages' addresses are relative, so they work below any path, and need nothing from another site.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from api.server.public_address import public_base
from api.server.query import KnownParameters
from api.server.responses import cacheable
from api.server.security_headers import PAGE_POLICY
from core.errors import NotFound

router = APIRouter(include_in_schema=False, dependencies=[KnownParameters])

_PAGES = files("api.server") / "pages"
_SWAGGER = files("fastapi_swagger") / "resources"
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_OF_PAGES: dict[str, Traversable] = {
    "docs.js": _PAGES / "docs.js",
    "swagger-ui-bundle.js": _SWAGGER / "swagger-ui-bundle.js",
    "swagger-ui.css": _SWAGGER / "swagger-ui.css",
}
"""What the pages load."""

Known = Annotated[str | None, Header(alias="if-none-match")]


@router.get("/docs")
def read_docs(known: Known = None) -> Response:
    """Every operation, to try out."""
    return _sent(_PAGES / "docs.html", known)


@router.get("/docs/{name}")
def read_file(name: str, known: Known = None) -> Response:
    """What the pages load."""
    if name not in _OF_PAGES:
        raise NotFound(f"GET /docs/{name} is not part of this service.")
    return _sent(_OF_PAGES[name], known)


@router.get("/openapi.json")
async def read_openapi(request: Request) -> Response:
    """The OpenAPI document; it names the public address where there is one."""
    document: dict[str, Any] = request.app.openapi()
    base = public_base()
    return JSONResponse(document | ({"servers": [{"url": base}]} if base else {}))


def _sent(file: Traversable, known: str | None) -> Response:
    kind = _KINDS[file.name.rpartition(".")[2]]
    response = cacheable(Response(file.read_bytes(), media_type=kind), known)
    response.headers["Content-Security-Policy"] = PAGE_POLICY  # of a 304 as well: it replaces the first one's
    return response
