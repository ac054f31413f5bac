"""How many requests a second the running service answers on this machine, and how long they take (`make load`).

python -m tests.bench.load --seconds 10 --connections 16

Redis, the API and a worker with a fast engine are started for it. Reading a job is measured with `wrk` where it is on
the PATH, otherwise with the generator in this file, which shares the processors with the service and so asks a little
less. Asking for pictures is measured with the generator. The processor time of the API's process for each request is
said as well: it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import httpx

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService

ENVIRON = {
    "HDB_ENGINE": "worker.testing:FakeEngine",
    "HDB_QUEUE_LIMIT": "1000000",
    "HDB_QUEUE_TOTAL": "1000000",
    "HDB_LOG_LEVEL": "INFO",
}
TICKS = os.sysconf("SC_CLK_TCK")
RATE, P99 = 1000.0, 0.05
"""What reading a job is to reach: requests a second, and seconds of all but one in a hundred."""


@dataclass(frozen=True)
class Figure:
    """What was measured. Times are seconds."""

    generator: str
    requests: int
    rate: float
    p50: float
    p99: float

    def __str__(self) -> str:
        times = f"p50 {1000 * self.p50:.1f} ms, p99 {1000 * self.p99:.1f} ms"
        return f"{self.rate:,.0f} requests/s, {times} ({self.requests:,} requests, {self.generator})"


def measure(url: str, request: bytes, *, connections: int, seconds: float) -> Figure:
    """With the generator of this file, in a process of its own. Raises RuntimeError for an answer that is not good."""
    with get_context("spawn").Pool(1) as pool:
        spans = pool.apply(_ask_all, (url, request, connections, seconds))
    spans.sort()
    if not spans:
        raise RuntimeError("no request was answered")
    at = [spans[min(len(spans) - 1, int(len(spans) * share))] for share in (0.5, 0.99)]
    return Figure("the built-in generator", len(spans), len(spans) / seconds, *at)


def measure_with_wrk(wrk: str, url: str, *, connections: int, seconds: float) -> Figure:
    """With wrk, one thread."""
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(said)
    found = {share: _seconds(re.search(rf"{share}%\s+([\d.]+\w+)", said)) for share in (50, 99)}
    requests, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not (requests and rate):
        raise RuntimeError(said)
    return Figure("wrk", int(requests[1]), float(rate[1]), found[50], found[99])


def get(path: str, **headers: str) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def post(path: str, body: object) -> bytes:
    """The same with a JSON body."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _ask_all(url: str, request: bytes, connections: int, seconds: float) -> list[float]:
    return asyncio.run(_concurrently(lambda: _ask(url, request, seconds), connections))


async def _concurrently(ask: Callable[[], Awaitable[list[float]]], connections: int) -> list[float]:
    answers: Sequence[list[float]] = await asyncio.gather(*(ask() for _ in range(connections)))
    return [span for spans in answers for span in spans]


async def _ask(url: str, request: bytes, seconds: float) -> list[float]:
    """One connection that is kept, and the seconds until each answer was there."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    spans, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 2", b"HTTP/1.1 304")):
            raise RuntimeError(head.decode())
        length = re.search(rb"content-length: (\d+)", head, flags=re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        spans.append(time.perf_counter() - began)
    writer.close()
    return spans


def _seconds(found: re.Match[str] | None) -> float:
    """wrk's times: 900.00us, 1.50ms, 2.00s."""
    if found is None:
        raise RuntimeError("wrk said no latencies")
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", found[1]).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def cpu(pid: int) -> float:
    """Processor seconds of a process so far; 0 where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else ["0"] * 13
    return (int(fields[11]) + int(fields[12])) / TICKS


def furnish(client: httpx.Client) -> tuple[str, str]:
    """A subject and a job that is over: their ids."""
    form = {"consent": "true"}
    subject = (
        client.post("/v1/subjects", files={"photo": as_file(drawn_face(300))}, data=form).raise_for_status().json()
    )
    client.get(subject["links"]["job"], headers={"Prefer": "wait=60"})
    asked = {"subject_id": subject["id"], "prompt": "a [V] face", "n": 4}
    job = client.post("/v1/generations", json=asked).raise_for_status().json()
    client.get(job["links"]["self"], headers={"Prefer": "wait=60"})
    return subject["id"], job["id"]


def run(folder: Path, *, connections: int, seconds: float) -> int:
    """Measure a service of its own, and print. 1 when reading a job is slower than it is to be."""
    with LocalService(folder, environ=ENVIRON) as service:
        with httpx.Client(base_url=service.url, timeout=90) as client:
            subject, job = furnish(client)
            tag = client.get(f"/v1/jobs/{job}").headers["etag"]
        path, wrk = f"/v1/jobs/{job}", shutil.which("wrk")
        measure(service.url, get(path), connections=connections, seconds=1.0)  # warm

        def asked_for(request: bytes, at_once: int = connections) -> Figure:
            return measure(service.url, request, connections=at_once, seconds=seconds)

        def say(what: str, ask: Callable[[], Figure]) -> Figure:
            before = cpu(service.api.pid)
            figure = ask()
            each = (cpu(service.api.pid) - before) / figure.requests
            print(f"{what:<34} {figure}; {1000 * each:.2f} ms of the API's processor each", flush=True)
            return figure

        asked = {"subject_id": subject, "prompt": "a [V] face"}
        if wrk:
            read = say(
                "GET a job", lambda: measure_with_wrk(wrk, service.url + path, connections=connections, seconds=seconds)
            )
        else:
            read = say("GET a job", lambda: asked_for(get(path)))
        unchanged = get(path, **{"If-None-Match": tag})
        say("GET a job that has not changed", lambda: asked_for(unchanged))
        say(
            "POST a generation",
            lambda: asked_for(post("/v1/generations", asked), 4),
        )
    enough = read.rate >= RATE and read.p99 <= P99
    print(f"at least {RATE:,.0f} requests/s within {1000 * P99:.0f} ms: {'yes' if enough else 'no'}")
    return int(not enough)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.bench.load", description="How fast the service is on this machine.")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hdb-load-") as folder:
        return run(Path(folder), connections=asked.connections, seconds=asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
