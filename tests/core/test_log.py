from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from core.log import configure_logging, log_context


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("INFO", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_its_context(lines: io.StringIO) -> None:
    with log_context(request_id="req_1"), log_context(job_id="job_1", other=""):
        logging.getLogger("test").info("job.done", extra={"seconds": 1.5})
    logging.getLogger("test").info("idle")
    first, second = read(lines)
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "test",
        "event": "job.done",
        "request_id": "req_1",
        "job_id": "job_1",
        "seconds": 1.5,
    }
    assert "job_id" not in second


def test_an_exception_is_logged_without_its_text(lines: io.StringIO) -> None:
    try:
        raise ValueError("a portrait of Jane Doe, nude")
    except ValueError:
        logging.getLogger("test").exception("job.crashed")
    (line,) = read(lines)
    assert line["exception"] == "ValueError"
    assert "test_an_exception" in line["at"][0]
    assert "Jane" not in lines.getvalue()


def test_libraries_do_not_log_their_messages(lines: io.StringIO) -> None:
    logging.getLogger("celery.worker.strategy").info("Task received with args: secret")
    assert lines.getvalue() == ""
