from __future__ import annotations

import re
from collections.abc import Iterator

import core.errors
from core.errors import HyperDreamBoothError, NoFace, QueueFull, SeveralFaces


def tree(top: type[HyperDreamBoothError] = HyperDreamBoothError) -> Iterator[type[HyperDreamBoothError]]:
    """The kinds that core defines; the API adds some of its own."""
    yield top
    for child in top.__subclasses__():
        if child.__module__ == core.errors.__name__:
            yield from tree(child)


def test_every_error_is_drawn_in_the_tree() -> None:
    assert core.errors.__doc__
    drawn = re.findall(r"[A-Z][a-z]+[A-Za-z0-9]+", core.errors.__doc__.partition("`code`")[0].partition("\n")[2])
    assert sorted(drawn) == sorted(kind.__name__ for kind in tree())


def test_every_code_is_its_own_and_in_kebab_case() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_the_docstring_is_the_message_unless_there_is_more_to_say() -> None:
    assert str(NoFace()) == NoFace.title() == "No face was found in the photo."
    assert str(NoFace("Turn on the light.", field="photo")) == "Turn on the light."
    assert NoFace(field="photo").field == "photo"


def test_errors_carry_what_can_be_acted_on() -> None:
    assert "4 faces" in SeveralFaces(count=4).detail
    assert QueueFull(retry_after=9).retry_after == 9
    assert QueueFull.retryable
    assert not NoFace.retryable
