"""Decoding in processes of their own: a photo that takes too much time or memory ends one of them, and not the API.

They start when they are needed, are kept for the next photo, and see nothing of the environment: no keys, no secrets.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import cast

from PIL import Image

from api.server.decoding.header import MAX_PIXELS
from core import errors
from core.errors import ImageBroken, Unavailable, UploadRefused, UploadTooLarge

MAX_PHOTO_BYTES = 10 * 1024 * 1024
DEADLINE_SECONDS = 15.0
"""By the clock, for a process that waits for a core; its processor time is limited by itself (`budget`)."""
POLL_SECONDS = 0.05
"""How long a sender can be gone before decoding its photo ends."""
_STRIP = 65_536
"""Pixels that are made a picture at a time, so that a large one is here once."""
_PIECE = 1024 * 1024
_MAX_LINE = 4096
_PROGRAM = (sys.executable, "-sP", "-m", "api.server.decoding.child")
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "262144",  # large blocks go back to the system at once
    "PYTHONWARNINGS": "ignore",
}
_NOT_NOW = "The photo could not be decoded now: send it again in a while."
_REFUSALS = {
    kind.code: kind
    for kind in (
        errors.UploadRefused,
        errors.UnsupportedMediaType,
        errors.ImageBroken,
        errors.ImageTooManyPixels,
        errors.ImageAnimated,
    )
}
_TOO_SLOW = (-signal.SIGPROF, -signal.SIGXCPU)
_CRASHED = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL)

_log = logging.getLogger(__name__)


class SenderGone(Exception):
    """The sender of the photo has hung up."""


class PhotoDecoder:
    """Decodes photos; each caller at the same time has a process."""

    def __init__(self, *, deadline: float = DEADLINE_SECONDS) -> None:
        """`deadline` is in seconds of the clock, for one photo. Nothing is started yet."""
        self._deadline = deadline
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _close, self._idle)
        """End the processes that wait; done when the decoder is forgotten, and at exit."""

    def decode(self, data: bytes, *, is_gone: Callable[[], bool] = lambda: False) -> Image.Image:
        """A photo's bytes to an upright RGB picture in sRGB, without metadata.

        Raises UploadTooLarge, UnsupportedMediaType, ImageTooManyPixels, ImageAnimated, ImageBroken (also when cut
        short), UploadRefused for what takes too much, Unavailable when there was no time for it, and SenderGone soon
        after `is_gone`.
        """
        if len(data) > MAX_PHOTO_BYTES:
            raise UploadTooLarge(f"A photo has at most {MAX_PHOTO_BYTES // 2**20} MB.", field="photo")
        if is_gone():
            raise SenderGone
        child = self._take()
        try:
            picture = child.decode(data, _Patience(self._deadline, is_gone))
        except UploadRefused:
            self._put_back(child)
            raise
        except BaseException:
            child.kill()
            raise
        self._put_back(child)
        return picture

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    return child
                child.kill()
        try:
            return _Child()
        except OSError as error:  # there is no memory for it, or no number
            _log.exception("decoder.not_started")
            raise Unavailable(_NOT_NOW, retry_after=5.0) from error

    def _put_back(self, child: _Child) -> None:
        with self._lock:
            if child.is_alive and self.close.alive:
                self._idle.append(child)
                return
        child.kill()


def _close(idle: list[_Child]) -> None:
    while idle:
        idle.pop().kill()


class _Patience:
    """How long to wait for a child, and for whom."""

    def __init__(self, seconds: float, is_gone: Callable[[], bool]) -> None:
        self._until = time.monotonic() + seconds
        self._is_gone = is_gone

    def wait(self, pipe: FileIO, event: int) -> None:
        """Until the pipe can be used, or has ended. Raises SenderGone, Unavailable."""
        poll = select.poll()
        poll.register(pipe, event)
        while not poll.poll(POLL_SECONDS * 1000):
            if self._is_gone():
                raise SenderGone
            if time.monotonic() > self._until:
                raise Unavailable(_NOT_NOW, retry_after=5.0)


class _Child:
    """A decoding process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            _PROGRAM,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the API, which finishes what it has begun
            env={**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)},
        )
        self._requests, self._answers = cast(FileIO, self._process.stdin), cast(FileIO, self._process.stdout)
        os.set_blocking(self._requests.fileno(), False)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, patience: _Patience) -> Image.Image:
        """Raises what `PhotoDecoder.decode` raises. Whatever the process answers, it is not believed further than that:
        a hostile photo may speak out of it.
        """
        try:
            self._send(len(data).to_bytes(4) + data, patience)
            answer = json.loads(self._line(patience))
            if "size" in answer:
                width, height = map(int, answer["size"])
                return self._picture(width, height, patience)
            refusal = _REFUSALS[answer["code"]](str(answer["detail"]), field="photo")
        except (EOFError, BrokenPipeError, ValueError, LookupError, TypeError) as error:
            raise self._end(error) from None
        raise refusal

    def _end(self, error: Exception) -> errors.HyperDreamBoothError:
        """Why there is no answer: by the signal that ended the process, which is gone after this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(POLL_SECONDS)
        status = self._process.poll()
        self.kill()
        if status in _TOO_SLOW:
            return UploadRefused("Decoding this file takes longer than a photo does: export it as JPEG.", field="photo")
        _log.warning("decoder.ended", extra={"status": status, "reason": type(error).__name__})
        if status in _CRASHED:
            return ImageBroken("The file is damaged: export the photo again.", field="photo")
        return Unavailable(_NOT_NOW, retry_after=5.0)

    def kill(self) -> None:
        self._process.kill()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()

    def _send(self, data: bytes, patience: _Patience) -> None:
        rest = memoryview(data)
        while rest:
            patience.wait(self._requests, select.POLLOUT)
            rest = rest[self._requests.write(rest[:_PIECE]) or 0 :]

    def _line(self, patience: _Patience) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < _MAX_LINE:
            byte = bytearray(1)
            self._fill(memoryview(byte), patience)
            line += byte
        return line

    def _picture(self, width: int, height: int, patience: _Patience) -> Image.Image:
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels were answered")
        picture = Image.new("RGB", (width, height))
        rows = max(1, _STRIP // width)
        strip = bytearray(width * rows * 3)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            self._fill(memoryview(strip)[: width * count * 3], patience)
            picture.paste(Image.frombuffer("RGB", (width, count), strip, "raw", "RGB", 0, 1), (0, top))
        return picture

    def _fill(self, buffer: memoryview, patience: _Patience) -> None:
        while buffer:
            patience.wait(self._answers, select.POLLIN)
            count = self._answers.readinto(buffer)
            if not count:
                raise EOFError
            buffer = buffer[count:]
