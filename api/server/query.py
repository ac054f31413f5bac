"""Unknown query parameters are refused, as unknown fields of a body are: a misspelt filter must not list everything."""

from __future__ import annotations

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from api.server.errors import InvalidFields
from hyperdreambooth.schemas import FieldProblem


def refuse_unknown_parameters(request: Request) -> None:
    """Raise InvalidFields when the query has parameters that the request's route does not declare."""
    known = query_names(request.scope["route"].dependant)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        hint = f"This operation takes {', '.join(sorted(known)) or 'none'}."
        raise InvalidFields([FieldProblem(field=name, message=f"Unknown query parameter. {hint}") for name in unknown])


def query_names(dependant: Dependant) -> set[str]:
    """The names of the query parameters that a route and its dependencies declare."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(query_names(each) for each in dependant.dependencies))


async def known_parameters(request: Request) -> None:
    """Raise InvalidFields for unknown query parameters. `Tenant` does that for the routes under /v1."""
    refuse_unknown_parameters(request)


KnownParameters = Depends(known_parameters)
"""For routes without a `Tenant`."""
