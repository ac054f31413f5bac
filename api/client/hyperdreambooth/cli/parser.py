"""Commands in two levels: `hdb NOUN VERB`, and `hdb VERB` for short forms."""

from __future__ import annotations

import argparse
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Group = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - it has no other name


class Parser(ArgumentParser):
    """An ArgumentParser that knows a default command, and one that leaves its arguments to others."""

    default_command = ""
    """The command when none is named."""
    leaves_rest = False
    """Whether all arguments become `rest`, unread."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """See ArgumentParser."""
        words = list(args or ())
        if self.leaves_rest:
            found, _ = super().parse_known_args([], namespace)
            found.rest = words
            return found, []
        if self.default_command and (not words or (words[0].startswith("-") and words[0] not in ("-h", "--help"))):
            words.insert(0, self.default_command)
        return super().parse_known_args(words, namespace)


class Commands:
    """The commands of one level."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def add(self, name: str, run: Callable[..., None], text: str) -> Parser:
        """A command that calls `run(client, args, out)`; `text` says what it does."""
        command = self._group.add_parser(name, help=text, description=sentence(text), parents=[common()])
        command.set_defaults(run=run, needs_service=True)
        return command

    def noun(self, name: str, text: str, *, default: str = "list") -> Commands:
        """A level of commands for a resource; `default` is the command when none is named."""
        level = self._group.add_parser(name, help=text, description=sentence(text))
        level.default_command = default
        return Commands(level.add_subparsers(dest="verb", required=True, metavar="COMMAND"))

    def elsewhere(self, name: str, run: Callable[[list[str]], int], text: str) -> None:
        """A command whose arguments `run` reads itself; it returns the exit status."""
        command = self._group.add_parser(name, help=text, add_help=False)
        command.leaves_rest = True
        command.set_defaults(run=run, needs_service=False)


def common() -> Parser:
    """The options that all commands have."""
    options: dict[str, Any] = {"default": SUPPRESS}
    parent = Parser(add_help=False)
    parent.add_argument("--url", help="where the service is ($HDB_URL)", **options)
    parent.add_argument("--api-key", metavar="KEY", help="your key ($HDB_API_KEY)", **options)
    parent.add_argument("--json", action="store_true", help="print JSON, a document a line", **options)
    return parent


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."
