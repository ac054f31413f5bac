"""Fuzz the running service: schemathesis over every operation of its OpenAPI document, from a seed (`make fuzz`).

python -m tests.fuzz.fuzz --cases 10000 --seed 1

Redis, the API and a worker with a fast engine are started for it. Everything is checked: no 5xx, no status, header or
content type that is not documented, answers fit their schemas, good requests are accepted and bad ones refused. Photo
files become faces most of the time, and ids those of things that are there, to get behind the first check.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import secrets
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError
from schemathesis.cli import schemathesis as command_line
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase
from schemathesis.transport.serialization import Binary

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService
from worker.testing import FakeScript

ENVIRON = {
    "HDB_ENGINE": "worker.testing:FakeEngine",
    "HDB_QUEUE_LIMIT": "1000000",
    "HDB_WRONG_KEYS_PER_MINUTE": "0",
    "HDB_QUEUE_TOTAL": "1000000",
    "HDB_PICTURES_PER_HOUR": "0",
    "HDB_REQUESTS_PER_MINUTE": "0",
    "HDB_PERSONALIZATIONS_PER_HOUR": "0",
    "HDB_WEBHOOKS_PER_TENANT": "100",
    "HDB_WEBHOOKS_ALLOW_PRIVATE": "true",
}
"""No limits: they would answer most requests with 429, and nothing behind them would be tried."""
PHOTO_STATUSES = (413, 415, 422)
"""What a photo, or the choice of a face in it, may be refused with: a schema cannot say what a good one is."""
OUTSIDE_CODES = {"idempotency-key-reused", "answer-erased", "webhook-refused"}
"""What a well-formed request may be refused with because of what was sent before it, or of what a name stands for."""
JSON_LINES = ("application/jsonl", "application/x-ndjson")
"""Bodies whose lines no schema describes: they may be refused."""
_BOOLEAN = TypeAdapter(bool)
KEPT_IDS = 40
FURNISH_EVERY = 200
STEP_SECONDS = 0.005
"""Of the engine: long enough for jobs to be called off while they wait or run."""


class Probe:
    """Stands between schemathesis and the service: puts in faces and ids that are there, and counts the answers."""

    def __init__(self, document: Mapping[str, Any], client: httpx.Client, seed: int) -> None:
        self._client = client
        self._document = document
        self._random = random.Random(seed)
        self._paths = [re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[\\w-]+)", path)) for path in document["paths"]]
        self._known: dict[str, list[str]] = defaultdict(list)
        self._faces = {kind: as_file(drawn_face(128), kind) for kind in ("JPEG", "PNG", "WEBP")}
        self.answers: Counter[tuple[str, int]] = Counter()
        self.pictures = 0

    @property
    def cases(self) -> int:
        """How many requests were answered."""
        return self.answers.total()

    def install(self) -> None:
        """Register with schemathesis, for this process."""
        faces = strategies.sampled_from([Binary(face) for face in self._faces.values()])
        schemathesis.openapi.format("binary", faces | strategies.binary().map(Binary))
        schemathesis.serializer(*JSON_LINES)(lambda _context, value: str(value).encode())

        @schemathesis.hook
        def before_load_schema(_context: Any, document: dict[str, Any]) -> None:
            _leave_items_only(document)

        @schemathesis.hook
        def before_call(_context: Any, case: Any, _options: Any) -> None:
            self.prepare(case)

        @schemathesis.hook
        def after_call(_context: Any, case: Any, response: Any) -> None:
            self.note(case, response)

        @schemathesis.hook
        def filter_failure(_context: Any, failure: Any, case: Any, response: Any) -> bool:
            return self.counts(failure, case, response)

    def prepare(self, case: Any) -> None:
        """Put faces where photos go, and ids of things that are there where ids go, unless those are what is wrong."""
        photos = case.body.get("photo") if isinstance(case.body, dict) else None
        if isinstance(photos, list):
            self.pictures += sum(getattr(photo, "data", photo) in self._faces.values() for photo in photos)
        if case.meta.phase.name is TestPhase.STATEFUL:
            return  # there the ids come from the answers before
        if case.meta.generation.mode.is_positive and isinstance(case.body, dict) and "url" in case.body:
            case.body["url"] = str(self._client.base_url.join("/healthz"))  # nothing is ever sent to strangers
        places = {
            ParameterLocation.PATH: case.path_parameters,
            ParameterLocation.QUERY: case.query,
            ParameterLocation.BODY: case.body,
        }
        wrong = _wrong_places(case.meta)
        for place, values in places.items():
            if place not in wrong and isinstance(values, dict):
                self._put_ids(values)
        if case.operation.method.upper() == "DELETE" and self._random.random() < 0.8:
            case.path_parameters.update(
                {name: f"{value[:4]}{'0' * 25}" for name, value in case.path_parameters.items()}
            )

    def note(self, case: Any, response: Any) -> None:
        """Count the answer, and learn the ids in it."""
        self.answers[f"{case.operation.method.upper()} {case.operation.path}", response.status_code] += 1
        if case.operation.method.upper() == "DELETE" or response.status_code == 404:
            for name, value in case.path_parameters.items():
                self._known[name] = [known for known in self._known[name] if known != value]
        if self.cases % FURNISH_EVERY == 0:
            self.furnish()
        elif response.headers.get("content-type") == ["application/json"]:
            self.learn(response.text)

    def learn(self, text: str) -> None:
        """Remember the ids in the paths that an answer has."""
        for path in self._paths:
            for found in path.finditer(text):
                for name, value in found.groupdict().items():
                    if value not in self._known[name]:
                        self._known[name] = [*self._known[name][-KEPT_IDS:], value]

    def furnish(self) -> None:
        """Make a subject and pictures of it, and a job that takes a while, so that there is something to find."""
        client = self._client
        photo, consent = {"photo": self._faces["JPEG"]}, {"consent": "true"}
        subject = client.post("/v1/subjects", files=photo, data=consent).raise_for_status().json()
        asked = {"subject_id": subject["id"], "prompt": "a pencil sketch of a [V] face", "n": 4}
        self.learn(client.get(subject["links"]["job"], headers={"Prefer": "wait=60"}).text)
        made = client.post("/v1/generations", json=asked)
        if made.status_code == 409:  # the worker is still busy with what was asked for before
            return
        self.learn(client.get(made.raise_for_status().headers["location"], headers={"Prefer": "wait=60"}).text)
        self.learn(client.post("/v1/generations", json={**asked, "steps": 100}).text)
        batch = {"prompts": [asked["prompt"]], "subject_ids": [subject["id"]]}
        for path, body in (("/v1/batches", batch), ("/v1/webhooks", {"url": str(client.base_url.join("/healthz"))})):
            self.learn(client.post(path, json=body).text)

    def counts(self, failure: Any, case: Any, response: Any) -> bool:
        """Whether it is a failure: not when a good request is refused for its photo, or for what was sent before it.

        Nor when it is refused for a size that only another model makes.

        Nor when a body that was made to be wrong is right after all, as null is where null may be.
        """
        if type(failure).__name__ == "AcceptedNegativeData":
            return not self._fits(case)
        if type(failure).__name__ != "RejectedPositiveData":
            return True
        problem = json.loads(response.content)
        if case.media_type in JSON_LINES and response.status_code in (400, 422):
            return False
        about_photo = response.status_code in PHOTO_STATUSES and problem.get("field") in ("photo", "face")
        about_grid = response.status_code == 422 and "makes multiples of" in str(problem.get("detail"))
        return not about_photo and not about_grid and problem.get("code") not in OUTSIDE_CODES

    def _put_ids(self, values: dict[str, Any]) -> None:
        """In place, also deep inside: `subject_id` is an id, `subject_ids` are some."""
        for name, value in values.items():
            known = self._known.get(name.removesuffix("s"), [])
            if isinstance(value, str) and name.endswith("_id") and known and self._random.random() < 0.8:
                values[name] = self._random.choice([known[-1], *self._random.choices(known, k=2)])
            elif isinstance(value, list) and name.endswith("_ids") and known and self._random.random() < 0.8:
                values[name] = self._random.sample(known, min(len(value), len(known)))
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict):
                    self._put_ids(inner)

    def _fits(self, case: Any) -> bool:
        """Whether the body is what the document asks for."""
        operation = self._document["paths"][case.operation.path][case.operation.method.lower()]
        media = operation.get("requestBody", {}).get("content", {}).get(case.media_type, {})
        schema = {**media.get("schema", {}), "components": self._document["components"]}
        is_about_body = bool(case.meta.is_negative_at(ParameterLocation.BODY))
        validator = Draft202012Validator(schema)
        body = case.body
        if case.media_type == "multipart/form-data" and isinstance(body, dict):
            body = _as_sent(body, validator)
        return is_about_body and bool(validator.is_valid(body))


def _leave_items_only(document: dict[str, Any]) -> None:
    """Take out the `schema` of a stream of events, which is not the list of them that schemathesis takes it for."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                response.get("content", {}).get("text/event-stream", {}).pop("schema", None)


def _as_sent(form: dict[str, Any], validator: Draft202012Validator) -> dict[str, Any]:
    """A form as it is read: it has only texts, of which an empty one is none, and `1` and `on` say yes."""
    form = {name: value for name, value in form.items() if value != ""}
    wrong = {error.path[0] for error in validator.iter_errors(form) if error.path}
    for name in wrong:
        for reading in _readings(form[name]):
            if not any(
                error.path and error.path[0] == name for error in validator.iter_errors({**form, name: reading})
            ):
                form = {**form, name: reading}
    return form


def _readings(value: Any) -> Iterator[Any]:
    """What the text of a value may be read as, where the document asks for another type."""
    if isinstance(value, bool | int | float | None):
        yield json.dumps(value)
    with contextlib.suppress(ValidationError):
        yield _BOOLEAN.validate_python(value)


def _wrong_places(meta: Any) -> set[ParameterLocation]:
    """Which parts of a case are meant to be refused."""
    wrong = {place for place, part in meta.components.items() if part.mode.is_negative}
    place = getattr(meta.phase.data, "parameter_location", None)
    return wrong | {place} if meta.generation.mode.is_negative and place else wrong


def fuzz(url: str, *, each: int, seed: int, folder: Path, options: tuple[str, ...] = ()) -> int:
    """Run all phases once, with `each` cases an operation in the random ones. Gives schemathesis' exit status."""
    config = folder / "schemathesis.toml"
    config.write_text(f"[cache]\nenabled = false\n\n[output.truncation]\nenabled = {json.dumps(False)}\n")
    arguments = ["run", f"{url}/openapi.json", "--checks=all", "--continue-on-failure", "--no-color", "--warnings=off"]
    limits = [f"--max-examples={each}", f"--seed={seed}", "--request-timeout=30", "--suppress-health-check=all"]
    command = ["--config-file", str(config), *arguments, *limits, *options]
    try:
        command_line.main(command, standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def serve_and_fuzz(cases: int, seed: int, folder: Path, *, quick: bool = False) -> int:
    """Fuzz a service of its own, in `folder`, until so many cases were answered. The exit status is for the shell.

    `quick` leaves out the phase that goes through every boundary, and does not ask for every operation to be tried.
    """
    key = f"fuzz-{secrets.token_hex(16)}"
    with LocalService(folder, environ={**ENVIRON, "HDB_API_KEYS": key}) as service:
        script = FakeScript(step_seconds=STEP_SECONDS)
        (folder / "fake-engine.json").write_text(script.model_dump_json())
        with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=90) as client:
            document = client.get("/openapi.json").json()
            probe = Probe(document, client, seed)
            for _ in range(3):
                probe.furnish()
            probe.install()
            operations = sum(len(methods) for methods in document["paths"].values())
            each, status = max(1, cases // (2 * operations)), 0
            while probe.cases < cases and not status:
                header = f"--header=Authorization: Bearer {key}"
                options = (header, "--phases=examples,fuzzing,stateful") if quick else (header,)
                status = fuzz(service.url, each=each, seed=seed + probe.cases, folder=folder, options=options)
    return report(probe, document, seed, quick=quick) or status


def report(probe: Probe, document: Mapping[str, Any], seed: int, *, quick: bool) -> int:
    """Print what was answered to what. 1 when an operation was never carried out, or something ended in 5xx."""
    by_operation: dict[str, Counter[int]] = defaultdict(Counter)
    for (operation, status), count in sorted(probe.answers.items()):
        by_operation[operation][status] += count
    print("\nanswers by operation:")
    for operation, found in by_operation.items():
        print(f"  {operation:<44}" + "  ".join(f"{status}: {count}" for status, count in found.items()))
    wanted = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    untried = sorted(name for name in wanted if not any(status < 400 for status in by_operation[name]))
    broken = sum(count for (_, status), count in probe.answers.items() if status >= 500)
    for name in untried:
        print(f"never carried out: {name}")
    print(f"\n{probe.cases} cases, {probe.pictures} valid pictures, seed {seed}: {broken} ended in 5xx")
    return int(bool(broken or (untried and not quick)))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.fuzz", description="Fuzz the service by its own description.")
    parser.add_argument("--cases", type=int, default=10_000, help="how many at least (10000)")
    parser.add_argument("--seed", type=int, default=1, help="where the random ones begin (1)")
    parser.add_argument("--quick", action="store_true", help="without the longest phase")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hdb-fuzz-") as folder:
        return serve_and_fuzz(asked.cases, asked.seed, Path(folder), quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
