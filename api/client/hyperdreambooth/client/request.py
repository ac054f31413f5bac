"""A request to the service as data, and how its answer is read. Nothing here opens a connection or waits."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from hyperdreambooth.client.problem import unexpected

PAGE_SIZE = 100
"""How many items of a list are read at once."""

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class HasId(Protocol):
    """An answer with an id."""

    @property
    def id(self) -> str: ...


class Page(Protocol):
    """One page of a list."""

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the next page; None in the last one."""


@dataclass(frozen=True)
class ApiRequest(Generic[T]):
    """One request. `read` returns the parsed answer.

    `repeatable`: sending it twice does no harm. `extra_seconds` that its answer may take beyond the client's timeout;
    `silence`: seconds between two pieces of its answer, instead of that timeout. `options` is what else httpx takes:
    params, headers, json, files, ...
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = True
    extra_seconds: float = 0.0
    silence: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing. Only reads follow redirects, to where a file is: photos are sent nowhere else."""
        return self.method == "GET"

    def build(self, client: httpx.Client | httpx.AsyncClient, limit: float) -> httpx.Request:
        """The request that `client` sends; `limit` is the client's timeout in seconds."""
        silence = limit + self.extra_seconds if self.silence is None else self.silence
        timeout = httpx.Timeout(limit, read=silence)
        return client.build_request(self.method, self.path, timeout=timeout, **self.options)


def get(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> ApiRequest[T]:
    """A GET of /v1/..."""
    return ApiRequest("GET", path_of(*parts), read, options=options)


def create(*parts: str, read: Callable[[httpx.Response], T], **options: Any) -> ApiRequest[T]:
    """A POST that creates something: once, however often it is sent, because of its Idempotency-Key."""
    headers = {"Idempotency-Key": secrets.token_hex(16), **options.pop("headers", {})}
    return ApiRequest("POST", path_of(*parts), read, options={"headers": headers, **options})


def change(
    method: str, *parts: str, read: Callable[[httpx.Response], T], repeatable: bool, **options: Any
) -> ApiRequest[T]:
    """A POST or DELETE that creates nothing. Not `repeatable`: the second time the service would refuse it."""
    return ApiRequest(method, path_of(*parts), read, repeatable=repeatable, options=options)


def path_of(*parts: str) -> str:
    """A path under /v1; an id given by a caller cannot lead elsewhere."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def page_params(cursor: str | None) -> dict[str, Any]:
    """The query parameters of one page of a list."""
    return {"limit": PAGE_SIZE, **given({"cursor": cursor})}


def id_of(ref: str | HasId) -> str:
    """The id of an answer, or `ref` itself where it is an id."""
    return ref if isinstance(ref, str) else ref.id


def answer_as(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """A function that parses an answer as this model."""
    return lambda answer: parse(model, answer)


def lines_as(model: type[ModelT]) -> Callable[[httpx.Response], list[ModelT]]:
    """A function that parses each line of an answer as this model."""

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
    """The answer as this model. Raises Problem when it is something else."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        raise unexpected(answer) from None


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}
