"""The code and its documents use the field's words (Celery, Stripe, diffusers, PEFT, the paper), never private ones."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import ROOT

WORDS = {
    "desk": "job service",
    "bell bells doorbell doorbells rung": "notification, notify",
    "courier couriers": "webhook dispatcher",
    "feeder feeders": "batch scheduler",
    "reaper": "maintenance",
    "letter letters": "item state",
    "tally tallies": "batch state, item states",
    "draft drafts": "batch upload",
    "standing standings": "job with its position, batch state",
    "door doors": "authenticator",
    "room rooms": "memory budget, package",
    "promise promises promised": "pending response",
    "together": "coalesced, in total",
    "team teams": "process group",
    "site sites": "run directory",
    "workshop workshops": "training run",
    "dream dreams": "sampled face",
    "look looks shown": "preview, training pictures, poll",
    "strata stratum": "timestep sampler",
    "nobody nobodys": "base model, no subject, unpersonalized",
    "somebody somebodys": "a subject, a client",
    "judge judges judged judging": "recogniser, likeness metric, check",
    "happening happenings": "event, message",
    "office": "dispatcher",
}
"""What is not said, and what is said instead."""
PRIVATE = frozenset(word for words in WORDS for word in words.split())
ALLOWED = re.compile(
    r"""
    draft-ietf-[a-z-]+                                # the name of an internet standard in the making
    | (?:small|capital|other|more|\d+)\ letters?      # of the alphabet
    | beach\ room                                     # a word of captions
    | letters?(?:,\ |\ and\ )(?:digits|blanks)
    | (?:web|another|other)\ sites?|site-packages     # of the web, of Python
    """,
    re.VERBOSE,
)
NAMES = re.compile(r"HyperDreamBooth|DreamBooth|Draft202012")
"""Proper names."""
STORED = re.compile(r"""hdb:[a-z:{}%.]*|["'](?:bells|turn|rung|letters)["']|tally\.json""")
"""Keys and fields in Redis and the store: they stay, since other versions read them."""

FOLDERS = ("api", "core", "worker", "deploy", "tests")
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
TEXTS = sorted(
    {
        *(
            path
            for path in ROOT.glob("*")
            if path.is_file() and path.suffix in ("", ".api", ".worker", ".md", ".toml", ".yml")
        ),
        *(path for folder in ("docs", "core") for path in (ROOT / folder).rglob("*.md")),
        *(ROOT / "core").rglob("*.lua"),
        *(ROOT / "deploy").rglob("*.yaml"),
    }
)


def pieces(name: str) -> list[str]:
    """The words of an identifier: `_read_page` and `ReadPage2` are read and page."""
    return [piece.lower() for piece in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", NAMES.sub("_", name))]


def in_prose(text: str) -> list[str]:
    """The private words in a text, where they have no allowed sense. British spelling of the method's name is one."""
    text = STORED.sub(" ", ALLOWED.sub(" ", text))
    found = [word for piece in re.findall(r"[A-Za-z_]+", text) for word in pieces(piece) if word in PRIVATE]
    return found + re.findall(r"personalis\w+", text, flags=re.IGNORECASE)


def in_identifier(name: str) -> list[str]:
    return [word for word in pieces(name) if word in PRIVATE] + re.findall(r"Hypernetwork|personalis\w+", name)


def is_prose(value: str) -> bool:
    """Messages, scripts and names of events and metrics; not keys and values."""
    return len(value.split()) > 2 or re.fullmatch(r"[a-z_]+\.[a-z_]+|hdb_[a-z_]+", value) is not None


def found_in_python(source: str) -> Iterator[str]:
    """The private words in identifiers, comments, docstrings, messages, log events and metrics, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        words = []
        if token.type == tokenize.NAME:
            words = in_identifier(token.string)
        elif token.type == tokenize.COMMENT:
            words = in_prose(token.string)
        yield from (f"{token.start[0]}: {word}" for word in words)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_prose(node.value):
            yield from (f"{node.lineno}: {word} in a text" for word in in_prose(node.value))


def found_in_text(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        yield from (f"{number}: {word}" for word in in_prose(line))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_no_private_word_in_python(path: Path) -> None:
    assert list(found_in_python(path.read_text())) == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_private_word_in_a_document_or_script(path: Path) -> None:
    assert list(found_in_text(path.read_text())) == []


def test_no_private_word_in_a_path() -> None:
    assert [name_of(path) for path in [*PYTHON, *TEXTS] if in_prose(name_of(path))] == []


@pytest.mark.parametrize(
    "source",
    [
        "desk = 1",
        "class JobDesk: ...",
        "def f(the_tally): ...",
        "x.rooms",
        "# the reaper comes",
        '"""Told to nobody."""',
        'log.info("bell.lost")',
        'Counter("hdb_doorbells", "x")',
        'raise ValueError("look at the door")',
        "class Hypernetwork: ...",
        "def personalise(): ...",
    ],
)
def test_it_is_found(source: str) -> None:
    assert list(found_in_python(source))


@pytest.mark.parametrize(
    "source",
    ["HyperNetwork", "hypernetwork", "roommate", '"bells"', '"1 to 40 small letters, digits"', "# another site"],
)
def test_it_is_not_found(source: str) -> None:
    assert list(found_in_python(source)) == []
