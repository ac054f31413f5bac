"""Both clients behind one face: whatever is tried with one is tried with the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from hyperdreambooth.client import AsyncClient, Client


class Patiently:
    """The asynchronous client, called as if it were the other one."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            async def run() -> Any:
                async with self._make() as client:
                    answer = getattr(client, name)(*args, **options)
                    if isinstance(answer, AsyncIterator):
                        return [item async for item in answer]
                    return await answer

            return anyio.run(run)

        return call


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client; takes what clients take."""
    with ExitStack() as open_clients:
        if request.param == "blocking":
            yield lambda *args, **options: open_clients.enter_context(Client(*args, **options))
        else:
            yield lambda *args, **options: Patiently(lambda: AsyncClient(*args, **options))
