"""The exceptions of the client, and how they are made from an answer."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from hyperdreambooth import schemas


class Problem(Exception):
    """The service refused or failed, or could not be reached. `str()` is a title and what to do."""

    def __init__(self, document: schemas.Problem) -> None:
        """`document` is the service's answer; without one its `status` is 0 and its `code` is `unreachable`."""
        super().__init__(f"{document.title} {document.detail}" if document.detail != document.title else document.title)
        self.document = document
        self.type = document.type
        self.title = document.title
        self.detail = document.detail
        self.status = document.status
        self.code = document.code
        self.field = document.field
        self.retryable = document.retryable
        self.request_id = document.request_id


class JobFailed(Exception):
    """A job that was waited for did not succeed."""

    def __init__(self, job: schemas.JobAnswer) -> None:
        super().__init__(job.error.detail if job.error else f"The job ended as {job.status}.")
        self.job = job


def problem_of(answer: httpx.Response) -> Problem:
    """The problem of an answer, also of one without a problem document, such as a proxy's."""
    request_id = answer.headers.get("x-request-id", "")
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            return Problem(schemas.Problem.model_validate_json(answer.content))
        except ValidationError:
            pass
    title = f"The service answered {answer.status_code}."
    return _problem("unexpected-answer", title, title, answer.status_code, request_id)


def unexpected(answer: httpx.Response) -> Problem:
    """The problem of an answer of success with an unexpected body."""
    detail = f"Is {answer.url.copy_with(path='/', query=None)} the address of this service?"
    request_id = answer.headers.get("x-request-id", "")
    return _problem("unexpected-answer", "The answer is not one of this service.", detail, 0, request_id)


def unreachable(error: httpx.RequestError) -> Problem:
    """The problem of a request without an answer."""
    reason = str(error) or type(error).__name__
    return _problem("unreachable", "The service cannot be reached.", f"Is it running? ({reason})", 0, "")


def _problem(code: str, title: str, detail: str, status: int, request_id: str) -> Problem:
    document = schemas.Problem(
        type="about:blank",
        title=title,
        status=status,
        detail=detail,
        code=code,
        retryable=status >= 500 or code == "unreachable",
        request_id=request_id,
    )
    return Problem(document)
