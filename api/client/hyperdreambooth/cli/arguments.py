"""Arguments that several commands have, and flags for the options in the models of the contract."""

from __future__ import annotations

import builtins
import types
import typing
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_options(command: ArgumentParser, model: type[BaseModel]) -> None:
    """A flag for each field of the model: `-n`, `--guidance-scale`; the service has the limits."""
    for name, field in model.model_fields.items():
        flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        command.add_argument(flag, dest=name, help=field.description, **_taken_as(field.annotation))


def given_options(args: Namespace, *models: type[BaseModel], besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options on the command line: fields of the models, and those named `besides`."""
    names = [*besides, *(name for model in models for name in model.model_fields)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def add_id(command: ArgumentParser, name: str) -> None:
    """The id of a subject, job, ..."""
    command.add_argument(name, metavar=name.upper(), help="its id")


def add_wait(command: ArgumentParser, text: str) -> None:
    """`--no-wait`."""
    command.add_argument("--no-wait", dest="wait", action="store_false", help=text)


def add_pictures(command: ArgumentParser, **options: Any) -> None:
    """`-o` and `--format`."""
    default = {"default": Path()} | options
    command.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="the folder for the pictures", **default)
    command.add_argument("--format", choices=["png", "webp"], default="png", help="of the pictures (png)")


def add_limit(command: ArgumentParser) -> None:
    """`-n` of a list."""
    command.add_argument("-n", type=int, default=20, metavar="N", help="how many at most (20)")


def existing_file(text: str) -> Path:
    """A file that is there."""
    file = Path(text)
    if not file.is_file():
        raise ArgumentTypeError(f"there is no file {text}")
    return file


def subject_or_blend(text: str) -> str | dict[str, float]:
    """A subject's id, or weights by ids: `ID=3,ID=1`."""
    if "=" not in text:
        return text
    try:
        parts = [part.partition("=") for part in text.split(",")]
        return {subject.strip(): float(weight) for subject, _, weight in parts}
    except ValueError:
        raise ArgumentTypeError(f"write a blend as ID=3,ID=1, not as {text}") from None


def _taken_as(annotation: object) -> dict[str, Any]:
    """How argparse reads a value of this type without its limits; each item of a list has a flag of its own."""
    arguments = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case types.UnionType | typing.Union:
            return _taken_as(next(each for each in arguments if each is not type(None)))
        case typing.Annotated:
            return _taken_as(arguments[0])
        case typing.Literal:
            return {"choices": list(arguments)}
        case builtins.list:
            return {"action": "append", **_taken_as(arguments[0])}
    assert isinstance(annotation, type)
    return {"type": annotation, "metavar": METAVARS[annotation]}
