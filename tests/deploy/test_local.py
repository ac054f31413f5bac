"""The whole service as processes of their own, with the fake engine in the worker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from deploy.first_steps import DEMO_FACE, curl_lines
from deploy.local import ROOT, FolderInUse, LocalService
from deploy.process import ProcessFailed
from tests.harness import FAKE

pytestmark = pytest.mark.process


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_processes_answer_on_loopback(service: LocalService) -> None:
    pids = {service.api.pid, service.worker.pid, service.dispatcher.pid, service.redis.pid, os.getpid()}
    assert len(pids) == 5
    with urlopen(f"{service.url}/readyz", timeout=5) as answer:
        assert json.load(answer)["status"] == "ready"


def test_a_folder_serves_one_service(service: LocalService) -> None:
    with pytest.raises(FolderInUse, match="running already"), LocalService(service.folder, environ=FAKE):
        pass
    assert service.api.pid


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_curl_lines_work_as_pasted(service: LocalService) -> None:
    upload, wait, generate = curl_lines(service.url, service.folder, DEMO_FACE)
    uploaded = subprocess.run(["bash", "-c", upload], capture_output=True, text=True, check=True)
    assert json.loads(uploaded.stdout)["status"] == "personalizing"
    waited = subprocess.run(["bash", "-c", wait], capture_output=True, text=True, check=True)
    assert json.loads(waited.stdout)["status"] == "succeeded"
    subprocess.run(["bash", "-c", generate], capture_output=True, check=True)
    with Image.open(service.folder / "picture.png") as picture:
        assert picture.format == "PNG"


def test_a_killed_worker_is_replaced(service: LocalService) -> None:
    before = service.worker.pid
    service.worker.kill()
    with pytest.raises(ProcessFailed):
        assert service.worker.pid
    service.restart_worker()
    assert service.worker.pid != before


def test_a_port_that_is_taken_is_said_at_once_and_nothing_stays_running(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FolderInUse, match=f"port {port}"), LocalService(tmp_path, port=port, environ=FAKE):
            pass
    assert not (tmp_path / "pids.json").exists()


def test_a_worker_without_its_model_says_why(tmp_path: Path) -> None:
    (tmp_path / "fake-engine.json").write_text('{"refuse_to_load": true}')
    with pytest.raises(ProcessFailed, match=r"(?s)the worker ended.*there is no such bundle"):
        LocalService(tmp_path, environ=FAKE).start()


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local", "--port", "0", "--folder", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **FAKE}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serving:
        try:
            assert serving.stdout
            greeting = next(line for line in serving.stdout if line.startswith("The studio is at"))
            url = greeting.split()[4]
            assert urlopen(f"{url}healthz", timeout=5).status == 200
            pids = [int(pid) for pid in json.loads((tmp_path / "pids.json").read_text())]
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert len(pids) == 4
    assert not [pid for pid in pids if is_running(pid)]
