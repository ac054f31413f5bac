from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from hyperdreambooth.client import Client, Problem, Retry
from hyperdreambooth.client.retry import retry_after

QUICK = Retry(first=0.001)
BUSY = httpx.Response(503, headers={"retry-after": "0"})
GOOD = httpx.Response(200, json={"models": []})
CUT_OFF = httpx.ReadError("cut off")


@pytest.fixture
def answering(connect) -> Callable[..., tuple[Any, list[httpx.Request]]]:
    """A client of a service that gives these answers, the last one again and again; and the requests it got."""

    def answering(*answers: httpx.Response | httpx.RequestError, retry: Retry = QUICK, **options: Any) -> Any:
        sent: list[httpx.Request] = []

        def carry(request: httpx.Request) -> httpx.Response:
            answer = answers[min(len(sent), len(answers) - 1)]
            sent.append(request)
            if isinstance(answer, httpx.RequestError):
                raise answer
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        return connect(transport=httpx.MockTransport(carry), retry=retry, **options), sent

    return answering


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_read_is_sent_again(answering, status):
    client, sent = answering(httpx.Response(status, headers={"retry-after": "0"}), httpx.ConnectError("no"), GOOD)
    assert client.models() == []
    assert len(sent) == 3


def test_what_creates_is_sent_again_with_its_key(answering):
    client, sent = answering(CUT_OFF, BUSY, httpx.Response(409, headers={"retry-after": "0"}))
    with pytest.raises(Problem, match="409"):
        client.generate("sub_x", "a [V] face")
    assert len(sent) == 4
    assert len({request.headers["idempotency-key"] for request in sent}) == 1
    with pytest.raises(Problem):
        client.generate("sub_x", "a [V] face")
    assert sent[-1].headers["idempotency-key"] != sent[0].headers["idempotency-key"]


def test_what_is_not_safe_is_sent_again_only_when_nothing_was_taken(answering):
    client, sent = answering(CUT_OFF)
    with pytest.raises(Problem, match="cannot be reached") as caught:
        client.cancel("job_x")
    assert len(sent) == 1, "it may have been carried out"
    assert (caught.value.code, caught.value.status) == ("unreachable", 0)
    for harmless in (httpx.ConnectError("no"), httpx.Response(429, headers={"retry-after": "0"})):
        client, sent = answering(harmless)
        with pytest.raises(Problem):
            client.cancel("job_x")
        assert len(sent) == QUICK.tries


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_cannot_help_is_not_tried(answering, status):
    client, sent = answering(httpx.Response(status))
    with pytest.raises(Problem) as caught:
        client.models()
    assert (len(sent), caught.value.status, caught.value.code) == (1, status, "unexpected-answer")


def test_retry_after_is_honoured_as_far_as_patience_goes(answering):
    client, sent = answering(httpx.Response(503, headers={"retry-after": "1"}), GOOD)
    begun = time.monotonic()
    client.models()
    assert 1.0 <= time.monotonic() - begun < 3
    client, sent = answering(httpx.Response(429, headers={"retry-after": "3600"}))
    with pytest.raises(Problem):
        client.models()
    assert len(sent) == 1


def test_pauses_double_within_limits(answering):
    retry = Retry(tries=99, first=0.001, longest=0.002)
    client, sent = answering(*[httpx.Response(503)] * 5, GOOD, retry=retry)
    begun = time.monotonic()
    client.models()
    assert len(sent) == 6
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("", None), ("soon", None), ("-1", None), (formatdate(0, usegmt=True), 0)]
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(httpx.Response(503, headers={"retry-after": value})) == seconds


@pytest.mark.parametrize("url", ["ftp://faces.example", "faces.example", "http://faces.example\n"])
def test_an_address_that_is_none_is_a_problem_at_once(url):
    begun = time.monotonic()
    with pytest.raises((Problem, httpx.InvalidURL)), Client(url) as client:
        client.models()
    assert time.monotonic() - begun < 0.4


def test_a_circle_of_redirects_is_a_problem(answering):
    client, _ = answering(httpx.Response(307, headers={"location": "/v1/models"}))
    with pytest.raises(Problem, match="cannot be reached"):
        client.models()


def test_an_answer_of_another_service_is_a_problem(answering):
    client, _ = answering(httpx.Response(200, text="<html>welcome</html>"))
    with pytest.raises(Problem, match="the address of this service"):
        client.models()


def test_files_are_fetched_from_where_the_service_sends_to_and_photos_go_nowhere(answering):
    elsewhere = httpx.Response(303, headers={"location": "https://store.example/file?signature=1"})
    client, sent = answering(elsewhere, httpx.Response(200, content=b"weights"), api_key="key")
    assert client.weights("sub_x", format="peft") == b"weights"
    assert sent[0].url.params["format"] == "peft"
    assert sent[0].headers["authorization"] == "Bearer key"
    assert sent[1].url.host == "store.example"
    assert "authorization" not in sent[1].headers
    client, sent = answering(httpx.Response(307, headers={"location": "https://evil.example/"}))
    with pytest.raises(Problem):
        client.create_subject(b"photo", consent=True)
    assert len(sent) == 1
