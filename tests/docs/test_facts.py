"""What the documents say in numbers is what the code does: a sentence that can be derived is derived here."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path

import pytest

from api.server import body_limits, body_memory, connections, event_reader, event_stream, jsonl, uploads
from api.server.decoding import budget
from api.server.errors import STATUS
from api.server.routes import jobs
from core.errors import BatchOver, QueueFull, RateLimited, TooManyFollowers, TooManyWebhooks
from core.jobs import pages
from core.records import MAX_ITEMS
from core.settings import EMBEDDED_BUNDLE, PREFIX, Settings
from core.subjects import photos
from core.tenants import usage
from core.webhooks import dispatcher, registry, schedule, sender
from deploy import local
from deploy.local import ROOT
from hyperdreambooth.client.webhook import MOST_SECONDS_OFF
from tests.api.server.test_key_watch import MOST_SECONDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MB = 2**20
EVENTS_KEPT = int(re.findall(r"EVENTS_KEPT, EVENTS_TTL = (\d+)", (ROOT / "core/jobs/lua/common.lua").read_text())[0])
STATUSES = {
    "HDB_QUEUE_LIMIT": QueueFull,
    "HDB_BATCH_LIMIT": QueueFull,
    "HDB_REQUESTS_PER_MINUTE": RateLimited,
    "HDB_PERSONALIZATIONS_PER_HOUR": RateLimited,
    "HDB_WEBHOOKS_PER_TENANT": TooManyWebhooks,
}
"""What a request beyond a setting's limit is refused with."""
SAID = [
    ("operating.md", r"holds (\d+) MB of them", body_memory.BODY_MEMORY_BYTES / MB),
    ("operating.md", r"(\d+) MB of each tenant", body_memory.TENANT_BYTES / MB),
    ("operating.md", r"pauses for (\d+) seconds", body_limits.MAX_PAUSE_SECONDS),
    ("operating.md", r"A head has (\d+) seconds", connections.HEAD_SECONDS),
    ("operating.md", r"more than ([\d,]+) connections", connections.MOST_CONNECTIONS),
    ("operating.md", r"stays below (\d+) MB", budget.MEMORY_BYTES / MB),
    ("operating.md", r"waits, then gets a (\d+)", STATUS["unavailable"]),
    ("operating.md", r"takes two minutes, gets a (\d+)", STATUS["malformed-request"]),
    ("events.md", r"`Prefer: wait=30` .* \((\d+) at most\)", jobs.MAX_WAIT),
    ("events.md", r"After (\d+) s without an event", event_stream.KEEP_ALIVE_SECONDS),
    ("events.md", r"After (\d+) minutes the stream ends", event_stream.MOST_SECONDS / 60),
    ("events.md", r"serves (\d+) streams", event_reader.MOST_FOLLOWERS),
    ("events.md", r"streams; another one is a (\d+)", STATUS[TooManyFollowers.code]),
    ("events.md", r"The last (\d+) events", EVENTS_KEPT),
    ("events.md", r"scans ([\d,]+) jobs", pages.MOST_NAMES),
    ("batches.md", r"the batch ([\d,]+) items", MAX_ITEMS),
    ("batches.md", r"line (\d+) KB", jsonl.MAX_LINE / 1024),
    ("batches.md", r"Canceling a finished batch is a (\d+)", STATUS[BatchOver.code]),
    ("weights.md", r"(\d+) at a time", uploads.MAX_PHOTOS),
    ("weights.md", r"(\d+) in all", photos.MAX_PHOTOS),
    ("webhooks.md", r"within (\d+) seconds is retried", sender.TIMEOUT_SECONDS),
    ("webhooks.md", r"For (\d+) hours\.\*\* Anything", dispatcher.GIVE_UP_SECONDS / 3600),
    ("webhooks.md", r"503 pause it for (\d+) seconds", dispatcher.COOLDOWN_SECONDS),
    ("webhooks.md", r"takes more than (\d+) seconds", dispatcher.SLOW_SECONDS),
    ("webhooks.md", r"Up to (\d+) messages at once", schedule.MOST_AT_ONCE),
    ("webhooks.md", r"keeps the last (\d+) finished", registry.KEPT_DELIVERIES),
    ("webhooks.md", r"for (\d+) hours at most", registry.KEPT_SECONDS / 3600),
    ("webhooks.md", r"> (\d+):\n +raise ValueError\(\"too old", MOST_SECONDS_OFF),
    ("keys.md", r"within (\d+) seconds", MOST_SECONDS),
    ("keys.md", r"for (\d+) days", usage.KEPT_DAYS),
]
"""A page, a sentence with a number in it, and what the code has."""


@pytest.mark.parametrize(("page", "sentence", "value"), SAID, ids=[f"{page} {said[:30]}" for page, said, _ in SAID])
def test_a_number_is_that_of_the_code(page: str, sentence: str, value: float) -> None:
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(sentence.replace(" ", r"\s+"), text)
    assert found, f"{page} does not say {sentence!r} any more: change this test with it"
    assert {int(each.replace(",", "")) for each in found} == {value}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_beyond_a_limit_has_its_status(page: Path) -> None:
    for line in page.read_text().splitlines():
        for name, error in STATUSES.items():
            said = re.findall(r"\b(4\d\d|503)\b", line.partition(f"`{name}`")[2]) if f"`{name}`" in line else []
            assert set(said) <= {str(STATUS[error.code])}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_defaults_in_tables_are_those_of_the_settings(page: Path) -> None:
    for names, values in re.findall(
        r"^\| ((?:`HDB_\w+`(?:, )?)+) \| ([^|`]*?) \|", page.read_text(), flags=re.MULTILINE
    ):
        fields = [name.removeprefix(PREFIX).lower() for name in re.findall(r"HDB_\w+", names)]
        said = [value.strip() for value in values.split(",")]
        for field, value in zip(fields, said, strict=len(said) > 1):
            default = Settings.model_fields[field].default
            if re.fullmatch(r"[\d.]+|true|false", value):
                assert json.loads(value) == default, f"{field}: {value}"
            elif value == "none":
                assert not default, f"{field}: {default}"


def test_the_folders_of_data_have_their_names() -> None:
    folder = local.parser().get_default("folder").relative_to(ROOT)
    assert f"`{folder}/`" in (ROOT / "docs" / "operating.md").read_text()
    assert Settings.model_fields["data_dir"].default == ROOT / folder
    assert f"| `HDB_DATA_DIR` | `{folder}` |" in (ROOT / "docs" / "settings.md").read_text()
    for image in ("Dockerfile.api", "Dockerfile.worker"):
        assert "HDB_DATA_DIR=/data" in (ROOT / image).read_text()


def parameters(part: str) -> int:
    """How many numbers the file of a part of the embedded bundle has, by its header."""
    (file,) = (EMBEDDED_BUNDLE / part).glob("*.safetensors")
    with file.open("rb") as opened:
        head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in head.items() if name != "__metadata__")


CARD = (EMBEDDED_BUNDLE / "README.md").read_text()


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_the_model_card_counts_its_parameters(part: str) -> None:
    (said,) = re.findall(rf"^\| `{part}` \|.* ([\d.]+)M parameters", CARD, flags=re.MULTILINE)
    assert float(said) == pytest.approx(parameters(part) / 1e6, abs=0.06)


def test_the_model_card_says_what_is_set() -> None:
    finetune = json.loads((EMBEDDED_BUNDLE / "bundle.json").read_text())["finetune"]
    assert (
        f"rank {finetune['rank']}, {finetune['steps']} steps of {finetune['optimizer'].title()} from the prediction"
        in CARD
    )
    for style in finetune["styles"]:
        assert style in " ".join(CARD.split())


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ("autoencoder", "{steps} steps of {batch} pictures"),
        ("hypernetwork", "{steps} steps of {batch} rows"),
        ("recogniser", "the recipe's {steps} steps of {batch}"),
    ],
)
def test_how_the_embedded_bundle_was_made_is_what_its_recipe_says(stage: str, sentence: str) -> None:
    """Where it was not, the card says what was done besides."""
    recipe = tomllib.loads((ROOT / "core/lab/training/recipes/faces-128.toml").read_text())
    done = recipe[stage]["optimization"]
    assert (
        sentence.format(steps=f"{done['steps']:,}" if done["steps"] > 999 else done["steps"], batch=done["batch"])
        in CARD
    )
