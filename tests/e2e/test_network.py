"""Nothing is sent from here: an upload and a personalizing in a network where every packet is seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[2]
UNSHARE = [["unshare", "--net"], ["unshare", "--net", "--map-root-user"]]
"""As root, and as anybody where the system allows it."""
QUIETED = ("ORT_", "CI", "XDG_", "HF_", "DO_NOT_TRACK", "HDB_")
"""Variables that keep telemetry quiet on machines of developers, and are not there on others."""
UPLOAD = """
    import sys, time
    from pathlib import Path
    from deploy.first_steps import DEMO_FACE
    from deploy.local import LocalService
    from hyperdreambooth.client import Client

    with LocalService(Path(sys.argv[1])) as service, Client(service.url) as client:
        subject = client.create_subject(DEMO_FACE.read_bytes(), consent=True, steps=2)
        client.wait(subject.job_id, timeout=200)
        job = client.wait(client.generate(subject.id, "a [V] face", steps=2).id, timeout=60)
        assert client.image(job.images[0].id)
        time.sleep(3)  # telemetry is sent in the background
"""
TELLTALES = {
    "Python connects": "import socket; socket.create_connection(('192.0.2.1', 443), timeout=0.2)",
    "Python resolves a name": "import socket; socket.getaddrinfo('telemetry.example', 443)",
    "native code resolves a name": "import subprocess; subprocess.run(['getent', 'hosts', 'telemetry.example'])",
}


def watched(folder: Path, code: str, *arguments: str) -> dict[str, Any]:
    """What the code sent; its home, its temporary files and its working folder are in `folder`."""
    for command in UNSHARE:
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            break
    else:
        pytest.skip("this system gives no process a network of its own")
    places = {name: str(folder / name) for name in ("HOME", "TMPDIR", "cwd")}
    for place in places.values():
        Path(place).mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(QUIETED)}
    environ |= {**places, "PYTHONPATH": f"{ROOT}:{ROOT}/api/client"}
    program = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    watch = [*command, sys.executable, "-m", "tests.e2e.network_watch", *program]
    done = subprocess.run(watch, env=environ, cwd=places["cwd"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "said": done.stderr}


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.slow
def test_an_upload_and_a_personalizing_reach_no_other_machine_and_leave_files_in_the_data_folder_only(
    tmp_path: Path,
) -> None:
    found = watched(tmp_path, UPLOAD, str(tmp_path / "data"))
    assert found["status"] == 0, found["said"]
    assert found["sent"] == []
    assert {path for path in files(tmp_path) if not path.is_relative_to(tmp_path / "data")} == set()


@pytest.mark.parametrize("code", TELLTALES.values(), ids=TELLTALES.keys())
def test_the_watch_sees(tmp_path: Path, code: str) -> None:
    assert watched(tmp_path, code)["sent"] != []


def test_the_watch_sees_what_onnxruntime_leaves_by_itself(tmp_path: Path) -> None:
    watched(tmp_path, "import onnxruntime; onnxruntime.SessionOptions()")
    if not files(tmp_path / "HOME"):
        pytest.skip("this version of onnxruntime is quiet by itself")


def test_onnxruntime_leaves_nothing_as_it_is_imported_here(tmp_path: Path) -> None:
    code = "from core.hyperdreambooth.faces.onnx_runtime import onnxruntime; onnxruntime.SessionOptions()"
    watched(tmp_path, code)
    assert not files(tmp_path)
