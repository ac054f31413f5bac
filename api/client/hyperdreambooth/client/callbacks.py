"""Calling `on_progress`: of the blocking client a function, of the asynchronous one also a coroutine function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def call(callback: Callable[[T], Any], value: T) -> None:
    """Call it; what it returns is dropped."""
    callback(value)


async def acall(callback: Callable[[T], Any], value: T) -> None:
    """Call it, and await what it returns where that can be awaited."""
    result = callback(value)
    if inspect.isawaitable(result):
        await result
