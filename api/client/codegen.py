"""Writes the files of `hyperdreambooth.client` that are made from others (`make generate`; `make check` compares).

python api/client/codegen.py            write them
python api/client/codegen.py --check    1 when one of them is not up to date

client/sync/*.py     the blocking client, from client/aio/*.py
client/options.py    the keyword options of the client's methods, from the models in schemas/
"""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from hyperdreambooth import schemas

CLIENT = Path(__file__).parent / "hyperdreambooth" / "client"
SYNC = [
    (r"[ ]+# noqa: ASYNC\d+.*", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b(__)?a(enter__|exit__|closing|close|read|iter_bytes|call)\b", r"\1\2"),
    (r"\banyio\b", "time"),
    (r"hyperdreambooth\.client\.aio\b", "hyperdreambooth.client.sync"),
]
"""Patterns in the asynchronous client, and their replacements in the blocking one."""

OPTIONS = '''"""The keyword options of the client's methods. None is the same as leaving an option out."""

from __future__ import annotations

from typing import Literal, TypedDict


class PhotoOptions(TypedDict, total=False):
    """Options of `add_photos`; see `hyperdreambooth.schemas.PersonalizeOptions` for the limits."""

    keep_photos: bool | None
    """Keep the aligned photos, so that later photos can be learned from with them."""
    face: str | None
    """Which face is meant, where several are in a photo: its number, or `left,top,right,bottom` as fractions."""
{personalize}


class SubjectOptions(PhotoOptions, total=False):
    """Options of `create_subject` and `personalize`."""

    name: str | None
    """For yourself; it comes back in answers."""
    class_noun: str | None
    """What `[V]` is; the model's `class_noun` when left out."""


class GenerateOptions(TypedDict, total=False):
    """Options of `generate` and `create_batch`; see `hyperdreambooth.schemas.GenerationOptions` for the limits."""

{generate}
'''


def files() -> Iterator[tuple[Path, str]]:
    """Each file that is made, and its text."""
    for source in sorted((CLIENT / "aio").glob("[!_]*.py")):
        yield CLIENT / "sync" / source.name, _made_from(f"aio/{source.name}", sync_of(source.read_text()))
    text = OPTIONS.format(
        personalize=_fields(schemas.PersonalizeOptions.model_fields),
        generate=_fields(schemas.GenerationOptions.model_fields),
    )
    yield CLIENT / "options.py", _made_from("the models in hyperdreambooth/schemas", text)


def sync_of(source: str) -> str:
    """The blocking twin of an asynchronous module's source."""
    for pattern, replacement in SYNC:
        source = re.sub(pattern, replacement, source)
    return source


def _made_from(what: str, text: str) -> str:
    """The text in the formatter's form, below a line that says where it comes from."""
    ruff = [sys.executable, "-m", "ruff"]
    named = ["--stdin-filename", str(CLIENT / "made.py"), "-"]
    for step in ([*ruff, "check", "--quiet", "--select", "I", "--fix", *named], [*ruff, "format", *named]):
        text = subprocess.run(step, input=text, capture_output=True, text=True, check=True).stdout
    return f"# Made by `make generate` from {what}: change that.\n{text}"


def _fields(fields: dict[str, FieldInfo]) -> str:
    """Fields of a TypedDict with their descriptions."""
    template = '    {}: {} | None\n    """{}"""'
    lines = [template.format(name, _type(each.annotation), each.description) for name, each in fields.items()]
    return "\n".join(lines)


def _type(annotation: object) -> str:
    """An annotation without limits and None: `int`, `Literal["a", "b"]`."""
    arguments = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case types.UnionType | typing.Union:
            return " | ".join(_type(each) for each in arguments if each is not type(None))
        case typing.Annotated:
            return _type(arguments[0])
        case typing.Literal:
            return f"Literal[{', '.join(map(repr, arguments))}]"
        case builtins.list:
            return f"list[{_type(arguments[0])}]"
    assert isinstance(annotation, type)
    return annotation.__name__


def main(arguments: list[str]) -> int:
    """The command line."""
    stale = [(file, text) for file, text in files() if not file.is_file() or file.read_text() != text]
    for file, text in stale:
        if "--check" in arguments:
            sys.stderr.write(f"{file} is not up to date: make generate\n")
        else:
            file.write_text(text)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
