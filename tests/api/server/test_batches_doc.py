"""docs/batches.md: its examples, in the order in which they stand there, against a server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from api.server.app import create_app
from core.batches.scheduler import BatchScheduler
from core.batches.service import Batches
from core.jobs.service import Jobs
from core.records import JobState
from core.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "batches.md"
needs_tools = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")


@pytest.fixture
def url(settings: Settings, job_service: Jobs) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(create_app(settings, job_service=job_service), log_level="error", lifespan="on")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@needs_tools
def test_the_examples(url, job_service, subject_id, generated, tmp_path):
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)).replace(
        "sleep 5", "sleep 0.2"
    )
    environment = {**os.environ, "HDB": url, "ADA": subject_id}
    with subprocess.Popen(["sh", "-eux", "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as shell:
        until = time.monotonic() + 60
        while shell.poll() is None and time.monotonic() < until:
            BatchScheduler(job_service).feed()
            do_first_batch(job_service, generated)
            time.sleep(0.1)
        out = shell.stdout.read().decode()
    assert shell.returncode == 0
    assert '"line": 3' in out
    assert out.count("/v1/images/img_") == 5
    assert '"canceling"' in out


def do_first_batch(job_service, generated):
    for standing in Batches(job_service).page("local", limit=9)[0][-1:]:
        for index in range(standing.batch.total):
            job = job_service.ledger.get(f"local/{standing.batch.job_id(index)}")
            if job and job.state is JobState.QUEUED:
                generated(job.id)
