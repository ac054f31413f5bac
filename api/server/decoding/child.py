"""The process that decodes: photos come in on its standard input, and pixels go out on its standard output.

A request is the length of a file in four bytes, and the file. An answer is a line of JSON, `{"size": [width, height]}`
and then the pixels, three bytes each, or `{"code": ..., "detail": ...}`. The process ends with its input.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from typing import BinaryIO

from api.server.decoding.budget import allow_seconds, allow_waiting, limit_process, seconds_for
from api.server.decoding.pixels import Photo
from core.errors import UploadRefused


def main() -> None:
    """Answer until the input ends."""
    answers = _private_output()
    limit_process()
    while length := sys.stdin.buffer.read(4):
        data = sys.stdin.buffer.read(int.from_bytes(length))
        allow_seconds(seconds_for())
        _answer(data, answers)
        allow_waiting()


def _private_output() -> BinaryIO:
    """Standard output for the answers alone: what a decoder prints is dropped."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    return answers


def _answer(data: bytes, answers: BinaryIO) -> None:
    """A failure after the size was sent ends the process: the reader then knows that there are no more pixels."""
    try:
        photo = Photo(data)
        allow_seconds(seconds_for(photo.format, photo.header.width * photo.header.height))
        picture = photo.decode()
        strips = picture.strips()
        first = next(strips)
    except UploadRefused as refusal:
        _line(answers, code=refusal.code, detail=refusal.detail)
        return
    except MemoryError:
        detail = "Decoding this file takes more memory than a photo does: export it as JPEG."
        _line(answers, code=UploadRefused.code, detail=detail)
        return
    _line(answers, size=picture.size)
    for strip in itertools.chain([first], strips):
        _send(strip, answers)


def _send(data: bytes, answers: BinaryIO) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[answers.write(rest) :]


def _line(answers: BinaryIO, **answer: object) -> None:
    _send(json.dumps(answer).encode() + b"\n", answers)


if __name__ == "__main__":
    main()
