"""`hdb models` and `hdb usage`: what the service runs, and what was used of it. Both raise Problem."""

from __future__ import annotations

from argparse import Namespace

from hyperdreambooth.cli.output import Output, table
from hyperdreambooth.client import Client
from hyperdreambooth.schemas import JobStatus, Usage

_ENDED = [state for state in JobStatus if state.is_final]


def models(client: Client, _: Namespace, out: Output) -> None:
    """A table of bundles, and what they do when a request does not say."""
    columns = {
        "ID": lambda model: model.id,
        "PIXELS": lambda model: "-" if model.resolution is None else str(model.resolution),
        "HYPERNETWORK": lambda model: "yes" if model.has_hypernetwork else "no",
        "STEPS": lambda model: str(model.steps),
        "GUIDANCE": lambda model: f"{model.guidance_scale:g}",
        "PERSONALIZE-STEPS": lambda model: str(model.personalize_steps),
    }
    out.show_all(client.models(), columns)


def usage(client: Client, asked: Namespace, out: Output) -> None:
    """A table of days (UTC) on which jobs ended, and their sum."""
    found = client.usage(days=asked.days)
    days = [(str(day.day), *_used(day)) for day in found.days]
    head = ("DAY", *(state.upper() for state in _ENDED), "PICTURES", "SECONDS")
    out.show(found, *table([head, *days, ("total", *_used(found.total))]))


def _used(used: Usage) -> list[str]:
    """Jobs by how they ended, pictures and seconds."""
    jobs = [sum(states.get(state, 0) for states in used.jobs.values()) for state in _ENDED]
    return [*map(str, jobs), str(used.pictures), f"{used.seconds:.0f}"]
