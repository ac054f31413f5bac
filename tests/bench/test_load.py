from __future__ import annotations

import pytest

from tests.bench import load

WRK = """Running 2s test @ http://127.0.0.1:8000/v1/jobs/job_1
  Latency Distribution
     50%    1.50ms
     75%    2.00ms
     90%    3.00ms
     99%  900.00us
  2500 requests in 2.00s, 1.20MB read
Requests/sec:   1250.00
"""


@pytest.mark.process
def test_the_generator_counts_what_was_answered(service):
    figure = load.measure(service.url, load.get("/healthz"), connections=4, seconds=0.5)
    assert figure.requests > 10
    assert 0 < figure.p50 <= figure.p99 < 0.5
    assert "requests/s" in str(figure)


@pytest.mark.process
def test_what_is_refused_is_no_figure(service):
    with pytest.raises(RuntimeError, match="404"):
        load.measure(service.url, load.get("/v1/jobs/none"), connections=1, seconds=0.2)


def test_what_wrk_says_is_read(tmp_path):
    wrk = tmp_path / "wrk"
    wrk.write_text(f"#!/bin/sh\ncat <<'END'\n{WRK}END\n")
    wrk.chmod(0o700)
    figure = load.measure_with_wrk(str(wrk), "http://127.0.0.1:1/", connections=1, seconds=1)
    assert (figure.generator, figure.requests, figure.rate, figure.p50, figure.p99) == (
        "wrk",
        2500,
        1250.0,
        1.5e-3,
        9e-4,
    )


def test_requests_as_they_go_over_the_wire():
    assert load.get("/x", Accept="a/b") == b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: a/b\r\n\r\n"
    assert load.post("/x", {"a": 1}).endswith(b'Content-Length: 8\r\n\r\n{"a": 1}')
