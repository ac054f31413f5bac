"""Many jobs while everything fails, in an order that the seed gives: `python -m tests.faults.storm --seed 1`.

A real API, workers of Celery, a webhook dispatcher, a real Redis, a store in a folder. Ends with 0 when every accepted
job is over, once, as it would be in a healthy system, and was told to a webhook; prints what was done and what is
wrong. `--without claims`, `fencing` or `recovery` switches one mechanism off: then something must be found.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from core.jobs.pages import JobFilter
from core.records import Consent, JobKind, JobState, SubjectStatus
from core.storage import keys
from core.webhooks.testing import ReceivedMessage, receiver
from tests.faults.engine import POISON, SCRIPTS
from tests.faults.faulty_service import FAULTS, FaultyService
from tests.worker.conftest import photo

FAULT_SECONDS = 3.0
"""How long a fault is, about."""
MOST_ATTEMPTS = 3


class Storm:
    """The service, what was asked of it, and what it told its webhook."""

    def __init__(self, service: FaultyService, jobs: int) -> None:
        self.service = service
        self.jobs = jobs
        self.accepted: dict[str, bool] = {}
        """Whether each job is poison."""
        self.odd_answers: Counter[int] = Counter()
        self.received: list[ReceivedMessage] = []
        self.faults: Counter[str] = Counter()

    def accept(self, subject_id: str, seconds: float) -> None:
        """Ask for all jobs in about so many seconds, each until there is an answer; some are poison."""
        chosen = random.Random(0)
        with httpx.Client(base_url=self.service.url, timeout=5.0) as client:
            for number in range(self.jobs):
                is_poison = number % 100 == 50
                asked = {
                    "subject_id": subject_id,
                    "prompt": f"a [V] face {POISON if is_poison else ''}",
                    "seed": number,
                }
                while (job_id := self._ask(client, asked, f"storm-{number}")) is None:
                    time.sleep(0.2)
                self.accepted[job_id] = is_poison
                time.sleep(chosen.uniform(0, 2 * seconds / self.jobs))

    def _ask(self, client: httpx.Client, asked: object, key: str) -> str | None:
        try:
            answer = client.post("/v1/generations", json=asked, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None
        if answer.status_code == 202:
            job_id: str = answer.json()["id"]
            return job_id
        if answer.status_code not in (409, 429, 503):  # being answered, or not now
            self.odd_answers[answer.status_code] += 1
        return None

    def run(self, names: list[str], rounds: int, pause: float) -> None:
        """Ask, and let each of these faults happen so many times meanwhile."""
        service = self.service
        made = service.services.subjects.create("local", [photo()], consent=Consent(at=1.0, version="1"))[0]
        wait(lambda: service.services.subjects.get("local", made.id).status is SubjectStatus.READY)
        seconds = rounds * len(names) * (pause + FAULT_SECONDS * service.length)
        asking = threading.Thread(target=self.accept, args=(made.id, seconds), daemon=True)
        asking.start()
        for _ in range(rounds):
            for name in service.random.sample(names, len(names)):
                self.faults[name] += 1
                getattr(service, f"fault_{name}")()
                service.replace_ended()
                time.sleep(service.random.uniform(0.5, 1.5) * pause)
        while asking.is_alive():
            service.replace_ended()
            asking.join(1.0)

    def violations(self, seconds: float) -> list[str]:
        """What is wrong once all faults are over, and there was so much time to settle."""
        store = self.service.services.store

        def is_settled() -> bool:
            self.service.replace_ended()
            return not (list(store.list("pending/")) or list(store.list(keys.UNDELIVERED)))

        found = [] if wait(is_settled, seconds) else [f"{len(list(store.list('pending/')))} jobs are not over"]
        found += [f"{times} answers {status}" for status, times in self.odd_answers.items()]
        told = self._told()
        for job_id, is_poison in self.accepted.items():
            found += self._violations_of(job_id, is_poison, told.get(job_id, set()))
        listed = self._listed()
        found += [f"{len(set(self.accepted) - listed)} are not on the list"] if set(self.accepted) - listed else []
        found += [f"{len(listed - set(self.accepted))} were made twice"] if listed - set(self.accepted) else []
        return found

    def _violations_of(self, job_id: str, is_poison: bool, told: set[str]) -> list[str]:
        services, found = self.service.services, []
        job = services.jobs.outcome("local", job_id)
        if job is None:
            return [f"{job_id} is lost"]
        wanted = JobState.FAILED if is_poison else JobState.SUCCEEDED
        if job.state is not wanted:
            found.append(f"{job_id} is {job.state}: {job.error}")
        if job.attempt > MOST_ATTEMPTS:
            found.append(f"{job_id}: {job.attempt} attempts")
        folders = {key.split("/")[3] for key in services.store.list(f"local/jobs/{job_id}/")} - {"outcome.json"}
        if folders != ({str(job.fence)} if job.state is JobState.SUCCEEDED else set()):
            found.append(f"{job_id}: pictures of {len(folders)} attempts, or of another one")
        return found if told == {f"job.{job.state}"} else [*found, f"{job_id} is {job.state}; a webhook got {told}"]

    def _told(self) -> dict[str, set[str]]:
        """What the webhook was told of each job."""
        told: dict[str, set[str]] = {}
        for message in [json.loads(each.body) for each in list(self.received)]:
            told.setdefault(message["data"].get("job_id", ""), set()).add(message["type"])
        return told

    def _listed(self) -> set[str]:
        listed: set[str] = set()
        after = ""
        while True:
            page = self.service.services.jobs.page("local", JobFilter(kind=JobKind.GENERATE), limit=100, after=after)
            listed |= {each.job.id for each in page.jobs}
            if not page.after:
                return listed
            after = page.after


def wait(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Whether it came true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="tests.faults.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="these faults (all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often there is each fault")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults, about")
    parser.add_argument("--length", type=float, default=1.0, help="how long a fault is, as a factor")
    parser.add_argument("--settle", type=float, default=300.0, help="seconds to settle in when the faults are over")
    parser.add_argument("--without", choices=["", *SCRIPTS, "recovery"], default="", help="what is switched off")
    parser.add_argument("--folder", type=Path, help="where the data stays (a temporary folder)")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        service = FaultyService(folder, args.seed, without=args.without, length=args.length)
        storm = Storm(service, args.jobs)
        try:
            with receiver(storm.received, lambda number: 500 if number % 10 == 3 else 200) as url:
                service.services.webhooks.create("local", url, None, description=None, most=1)
                storm.run(args.only or FAULTS, args.rounds, args.pause)
                found = storm.violations(args.settle)
        finally:
            service.set_faults()
            service.end()
        seconds = round(time.monotonic() - began)
        counts = dict(sorted(storm.faults.items()))
        done = f"{len(storm.accepted)} jobs, {len(storm.received)} webhook messages, {storm.faults.total()} faults"
        lines = [f"seed {args.seed}: {done} in {seconds} s: {counts}"]
        lines += found or ["nothing is wrong: 0 lost, 0 twice, 0 failed that need not have, all told"]
        sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
