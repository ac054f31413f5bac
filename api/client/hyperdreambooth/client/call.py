"""A request as data, and how its answer is read. Nothing here opens a connection or waits."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from hyperdreambooth.client.problem import unexpected

PAGE = 100
"""How much a list is asked for at once."""

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Thing(Protocol):
    """What has an id."""

    @property
    def id(self) -> str: ...


class Page(Protocol):
    """A part of a list."""

    @property
    def next_cursor(self) -> str | None:
        """What asks for the part after this one; None in the last one."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `read` makes of its answer what the caller wants.

    `repeatable`: it does no harm when it is carried out twice. `patience`: seconds that its answer may take beside the
    client's own limit; `silence`: seconds that it may be silent, instead of that limit. `options` is what else httpx
    takes: params, headers, json, files, ...
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = True
    patience: float = 0.0
    silence: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """It changes nothing; only reads are redirected, to where a file is: photos go nowhere else."""
        return self.method == "GET"

    def request(self, client: httpx.Client | httpx.AsyncClient, limit: float) -> httpx.Request:
        """What `client` sends; `limit` is the client's own, in seconds."""
        silence = limit + self.patience if self.silence is None else self.silence
        timeout = httpx.Timeout(limit, read=silence)
        return client.build_request(self.method, self.path, timeout=timeout, **self.options)


def get(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> Call[T]:
    """A read."""
    return Call("GET", path_of(*parts), read, options=options)


def create(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> Call[T]:
    """A POST that makes something: once, however often it is sent, by its Idempotency-Key."""
    headers = {"Idempotency-Key": secrets.token_hex(16), **options.pop("headers", {})}
    return Call("POST", path_of(*parts), read, options={"headers": headers, **options})


def path_of(*parts: str) -> str:
    """A path under /v1; what callers gave as an id cannot lead elsewhere."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def page(cursor: str | None) -> dict[str, str | int]:
    """The parameters of a list."""
    return {"limit": PAGE, **given({"cursor": cursor})}


def id_of(ref: str | Thing) -> str:
    """The id of a thing that is given as it came, or as its id."""
    return ref if isinstance(ref, str) else ref.id


def answer_as(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Reads an answer as this model."""
    return lambda answer: parse(model, answer)


def lines_as(model: type[ModelT]) -> Callable[[httpx.Response], list[ModelT]]:
    """Reads each line of an answer as this model."""

    def read(answer: httpx.Response) -> list[ModelT]:
        try:
            return [model.model_validate_json(line) for line in answer.content.splitlines()]
        except ValidationError:
            raise unexpected(answer) from None

    return read


def content(answer: httpx.Response) -> bytes:
    """The bytes of an answer."""
    return answer.content


def parse(model: type[ModelT], answer: httpx.Response) -> ModelT:
    """The model that an answer holds. Raises Problem when it holds something else."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        raise unexpected(answer) from None


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not None."""
    return {key: value for key, value in values.items() if value is not None}
