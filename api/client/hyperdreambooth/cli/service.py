"""`hdb models` and `hdb usage`: the models of the service, and what was used."""

from __future__ import annotations

from argparse import Namespace

from hyperdreambooth.cli.output import Output, table
from hyperdreambooth.cli.parser import Commands
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import JobStatus, Usage

_ENDED = [state for state in JobStatus if state.is_final]


def add_commands(top: Commands) -> None:
    """`hdb models` and `hdb usage`."""
    top.add("models", models, "list the models that the service runs")
    command = top.add("usage", usage, "show the jobs, pictures and seconds of the last days")
    command.add_argument("--days", type=int, default=30, metavar="N", help="how many days, today included (30)")


def models(client: Client, _: Namespace, out: Output) -> None:
    """A table of bundles and their defaults."""
    columns = {
        "ID": lambda model: model.id,
        "PIXELS": lambda model: "-" if model.resolution is None else str(model.resolution),
        "TOKENS": lambda model: str(model.limits.prompt_tokens or "-"),
        "HYPERNETWORK": lambda model: "yes" if model.has_hypernetwork else "no",
        "STEPS": lambda model: str(model.steps),
        "GUIDANCE": lambda model: f"{model.guidance_scale:g}",
        "PERSONALIZE-STEPS": lambda model: str(model.personalize_steps),
    }
    out.show_all(client.models(), columns)


def usage(client: Client, args: Namespace, out: Output) -> None:
    """A table of days (UTC) on which jobs ended, and their sum."""
    found = client.usage(days=args.days)
    days = [(str(day.day), *_used(day)) for day in found.days]
    head = ("DAY", *(state.upper() for state in _ENDED), "PICTURES", "SECONDS")
    out.show(found, *table([head, *days, ("total", *_used(found.total))]))


def _used(used: Usage) -> list[str]:
    """Jobs by how they ended, pictures and seconds."""
    jobs = [sum(states.get(state, 0) for states in used.jobs.values()) for state in _ENDED]
    return [*map(str, jobs), str(used.pictures), f"{used.seconds:.0f}"]
