"""The service from Python, typed and synchronous.

    with Client() as client:
        subject = client.create_subject(Path("me.jpg"), consent=True)
        client.wait(subject.job_id, on_progress=lambda job: print(job.stage, job.step, job.total))
        job = client.wait(client.generate(subject.id, "a pencil sketch of a [V] face", n=4).id)
        pictures = [client.image(image.id) for image in job.images]

Reads are tried again when the service cannot be reached; requests that create something only when it said that it took
nothing (429, 503).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

import httpx

from api import schemas
from core.jobs import JobState

Photo = bytes | Path
Stage = Literal["preview", "refined"]


class GenerateOptions(TypedDict, total=False):
    """What a generation may say besides subject and prompt; see `GenerationRequest` for the limits."""

    n: int
    seed: int
    steps: int
    guidance_scale: float
    width: int
    height: int
    negative_prompt: str
    stage: Stage


class Problem(Exception):
    """The service refused or failed; `document` says why. It reads as a title and what to do."""

    def __init__(self, document: schemas.Problem) -> None:
        self.document = document
        super().__init__(f"{document.title} {document.detail}" if document.detail != document.title else document.title)

    @property
    def code(self) -> str:
        """The stable code: `no-face`, `subject-not-ready`, ..., or `unreachable` when there was no answer."""
        return self.document.code


class JobFailed(Exception):
    """A job that was waited for did not succeed."""

    def __init__(self, job: schemas.JobAnswer) -> None:
        self.job = job
        super().__init__(job.error.detail if job.error else f"The job ended as {job.status}.")


class Client:
    """One service. Thread-safe as far as httpx is; close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        tries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is for one request in seconds, `tries` is how often one is sent at most."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._timeout = timeout
        self._tries = tries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_subject(
        self,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        name: str | None = None,
        class_noun: str | None = None,
        rank: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> schemas.SubjectAnswer:
        """Upload photos of one person and begin to personalise. `consent`: that person has agreed. Raises Problem."""
        options = {"rank": rank, "steps": steps, "seed": seed}
        given = {
            "consent": "true" if consent else "false",
            "name": name,
            "class_noun": class_noun,
            "options": json.dumps({key: value for key, value in options.items() if value is not None}),
        }
        several = [photos] if isinstance(photos, bytes | Path) else photos
        files = [("photo", ("photo", p.read_bytes() if isinstance(p, Path) else p)) for p in several]
        data = {key: value for key, value in given.items() if value is not None}
        return schemas.SubjectAnswer.model_validate(self._send("POST", "/v1/subjects", data=data, files=files).json())

    def subject(self, subject_id: str) -> schemas.SubjectAnswer:
        """A subject as it stands. Raises Problem."""
        return schemas.SubjectAnswer.model_validate(self._send("GET", f"/v1/subjects/{subject_id}").json())

    def subjects(self) -> Iterator[schemas.SubjectAnswer]:
        """All subjects, oldest first, read a page at a time. Raises Problem."""
        cursor: str | None = ""
        while cursor is not None:
            answer = self._send("GET", "/v1/subjects", params={"limit": 100, "cursor": cursor})
            page = schemas.SubjectPage.model_validate(answer.json())
            yield from page.subjects
            cursor = page.next_cursor

    def delete_subject(self, subject_id: str) -> schemas.DeletionReceipt:
        """Erase a subject and everything made of it. Raises Problem."""
        return schemas.DeletionReceipt.model_validate(self._send("DELETE", f"/v1/subjects/{subject_id}").json())

    def weights(self, subject_id: str, *, stage: Stage = "refined") -> bytes:
        """A subject's .lidb file. Raises Problem."""
        return self._send("GET", f"/v1/subjects/{subject_id}/weights", params={"stage": stage}).content

    def generate(self, subject_id: str, prompt: str, **options: Unpack[GenerateOptions]) -> schemas.JobAnswer:
        """Ask for `n` pictures; the answer is a job to wait for. Raises Problem."""
        asked = {"subject_id": subject_id, "prompt": prompt, **options}
        return schemas.JobAnswer.model_validate(self._send("POST", "/v1/generations", json=asked).json())

    def job(self, job_id: str, *, wait: int = 0) -> schemas.JobAnswer:
        """A job as it stands, or as it stands when it is over, or after `wait` seconds (at most 60). Raises Problem."""
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        answer = self._send("GET", f"/v1/jobs/{job_id}", headers=headers, timeout=self._timeout + wait)
        return schemas.JobAnswer.model_validate(answer.json())

    def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[schemas.JobAnswer], None] | None = None,
        timeout: float | None = None,
        interval: float = 0.3,
    ) -> schemas.JobAnswer:
        """Wait until the job has succeeded; `on_progress` sees it at first and whenever it has changed.

        Raises JobFailed when it ends otherwise, TimeoutError after `timeout` seconds, Problem.
        """
        until = None if timeout is None else time.monotonic() + timeout
        seen: schemas.JobAnswer | None = None
        while True:
            job = self.job(job_id, wait=0 if on_progress else _patience(until))
            if on_progress and job != seen:
                on_progress(job)
            seen = job
            if job.status is JobState.SUCCEEDED:
                return job
            if JobState(job.status).is_final:
                raise JobFailed(job)
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"Job {job_id} is still {job.status} after {timeout:g} s.")
            time.sleep(interval if on_progress else 0.05)

    def cancel(self, job_id: str) -> schemas.JobAnswer:
        """Ask a job to stop. Raises Problem."""
        return schemas.JobAnswer.model_validate(self._send("POST", f"/v1/jobs/{job_id}/cancel").json())

    def image(self, image_id: str, *, kind: Literal["png", "webp"] = "png") -> bytes:
        """A picture's bytes. Raises Problem."""
        return self._send("GET", f"/v1/images/{image_id}", headers={"Accept": f"image/{kind}"}).content

    def models(self) -> list[schemas.ModelAnswer]:
        """The bundles the service runs. Raises Problem."""
        return schemas.ModelList.model_validate(self._send("GET", "/v1/models").json()).models

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for left in reversed(range(self._tries)):
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if method != "GET" or not left:
                    raise _unreachable(error) from error
                time.sleep(0.5)
                continue
            if answer.status_code not in (429, 503) or not left:
                break
            time.sleep(min(float(answer.headers.get("Retry-After", "1")), 10.0))
        if answer.is_success:
            return answer
        raise _problem(answer)


def _patience(until: float | None) -> int:
    """Seconds of one long read: short enough for proxies, never beyond the caller's own limit."""
    return 20 if until is None else max(1, min(20, round(until - time.monotonic())))


def _problem(answer: httpx.Response) -> Problem:
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        return Problem(schemas.Problem.model_validate(answer.json()))
    return Problem(_document(f"The service answered {answer.status_code}.", "unexpected-answer", answer.status_code))


def _unreachable(error: httpx.TransportError) -> Problem:
    return Problem(_document(f"The service cannot be reached: {error}", "unreachable", 0))


def _document(detail: str, code: str, status: int) -> schemas.Problem:
    return schemas.Problem(
        type="about:blank", title=detail, status=status, detail=detail, code=code, retryable=True, request_id=""
    )
