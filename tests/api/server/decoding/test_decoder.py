"""The decoding processes: what they take, what becomes of them, and what the API sees of it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from api.server.decoding import decoder as module
from api.server.decoding.decoder import MAX_PHOTO_BYTES, PhotoDecoder, SenderGone
from core.errors import ImageBroken, Unavailable, UnsupportedMediaType, UploadRefused, UploadTooLarge
from tests.api.server.decoding.bombs import LARGEST, Bomb, as_file, bombs
from tests.api.server.decoding.pictures import scene

pytestmark = pytest.mark.process
PHOTO = as_file(scene(), "PNG")
START_SECONDS = 0.4
"""Processor time that a process takes to start, at most."""
MOST_MEGABYTES = 512


@pytest.fixture
def decoder() -> Iterator[PhotoDecoder]:
    decoder = PhotoDecoder()
    yield decoder
    decoder.close()


def child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes(decoder: PhotoDecoder) -> float:
    """The most memory that its process had; 0 when it has ended, or where the system does not count."""
    status = [Path(f"/proc/{child._process.pid}/status") for child in decoder._idle]
    lines = [line for path in status if path.exists() for line in path.read_text().splitlines()]
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def programmed(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Other processes for new decoders: ones that misbehave."""
    monkeypatch.setattr(module, "_PROGRAM", (sys.executable, "-c", program))


@pytest.mark.parametrize("bomb", list(bombs()), ids=lambda bomb: bomb.name)
def test_bombs(bomb: Bomb):
    data = bomb.make()
    assert len(data) <= LARGEST
    before, decoder = child_seconds(), PhotoDecoder()
    with pytest.raises(UploadRefused) if bomb.is_refused else contextlib.suppress(UploadRefused):
        decoder.decode(data)
    assert peak_megabytes(decoder) <= MOST_MEGABYTES
    decoder.close()
    assert child_seconds() - before <= START_SECONDS + (1.0 if bomb.is_refused else 2.0)


def test_pixels_are_those_of_the_photo(decoder):
    assert np.array_equal(np.asarray(decoder.decode(PHOTO)), np.asarray(scene()))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3000, 2), (257, 511)])
def test_pixels_of_every_size(decoder, size):
    assert np.array_equal(np.asarray(decoder.decode(as_file(scene(*size), "PNG"))), np.asarray(scene(*size)))


def test_a_process_is_kept_also_after_a_refusal(decoder):
    decoder.decode(PHOTO)
    (child,) = decoder._idle
    with pytest.raises(UnsupportedMediaType, match="GIF"):
        decoder.decode(b"GIF89a")
    decoder.decode(PHOTO)
    assert decoder._idle == [child]


def test_one_that_has_ended_is_replaced(decoder):
    decoder.decode(PHOTO)
    decoder._idle[0]._process.kill()
    decoder._idle[0]._process.wait()
    assert decoder.decode(PHOTO).size == scene().size


def test_callers_at_the_same_time_have_one_each(decoder):
    with ThreadPoolExecutor(3) as pool:
        assert {picture.size for picture in pool.map(decoder.decode, [PHOTO] * 9)} == {scene().size}
    assert len(decoder._idle) <= 3


def test_size_in_bytes_is_limited(decoder):
    with pytest.raises(UploadTooLarge):
        decoder.decode(b"\xff\xd8\xff" + bytes(MAX_PHOTO_BYTES))


def test_it_is_not_told_secrets(decoder, monkeypatch):
    monkeypatch.setenv("HDB_API_KEYS", "SECRET")
    decoder.decode(PHOTO)
    environment = Path(f"/proc/{decoder._idle[0]._process.pid}/environ")
    if not environment.exists():
        pytest.skip("/proc is Linux's")
    assert b"SECRET" not in environment.read_bytes()


def test_it_ends_when_the_sender_has_gone(decoder, monkeypatch):
    programmed(monkeypatch, "import time; time.sleep(60)")
    gone = threading.Event()
    threading.Timer(0.2, gone.set).start()
    began = time.monotonic()
    with pytest.raises(SenderGone):
        decoder.decode(PHOTO, is_gone=gone.is_set)
    assert time.monotonic() - began < 5
    assert not decoder._idle


def test_it_ends_at_the_deadline(monkeypatch):
    programmed(monkeypatch, "import time; time.sleep(60)")
    decoder = PhotoDecoder(deadline=0.3)
    with pytest.raises(Unavailable) as caught:
        decoder.decode(PHOTO)
    assert caught.value.retryable
    assert not decoder._idle


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGPROF)", UploadRefused),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", ImageBroken),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Unavailable),
        ("1 / 0", Unavailable),
        ("print('{\"size\": [60000, 60000]}', flush=True)", Unavailable),
        ("print('{\"size\": [-1, -1]}', flush=True)", Unavailable),
        ("print('{\"size\": [10, 10]}', flush=True)", Unavailable),
        ('print(\'{"code": "subject-not-found", "detail": "x"}\', flush=True)', Unavailable),
        ("print('x' * 100_000, flush=True)", Unavailable),
        ("print('[]', flush=True)", Unavailable),
    ],
)
def test_whatever_it_does_is_a_refusal(decoder, monkeypatch, program, error, capfd):
    programmed(monkeypatch, program)
    with pytest.raises(error) as caught:
        decoder.decode(PHOTO)
    assert type(caught.value) is error
    assert not decoder._idle


def test_one_that_cannot_start_is_no_fault(decoder, monkeypatch):
    monkeypatch.setattr(module, "_PROGRAM", ("/no/such/program",))
    with pytest.raises(Unavailable):
        decoder.decode(PHOTO)


@pytest.mark.parametrize("work", ["while True: pass", "import hashlib\nwhile True: hashlib.sha256(bytes(10**6))"])
def test_processor_time_is_limited(work):
    before = child_seconds()
    program = f"from api.server.decoding.budget import allow_seconds\nallow_seconds(0.2)\n{work}"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    assert ended.returncode == -signal.SIGPROF
    assert child_seconds() - before < 0.2 + START_SECONDS


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
def test_memory_is_limited():
    program = "from api.server.decoding.budget import limit_process\nlimit_process()\nbytes(600 * 2**20)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=False, capture_output=True)
    assert b"MemoryError" in ended.stderr
