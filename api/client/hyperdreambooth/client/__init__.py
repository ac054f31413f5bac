"""The service from Python, typed, blocking (`Client`) or not (`AsyncClient`).

    with Client() as client:
        subject = client.personalize(Path("me.jpg"), consent=True, on_progress=print)
        job = client.wait(client.generate(subject, "a pencil sketch of a [V] face", n=4))
        pictures = [client.image(image) for image in job.images or []]

problem.py     what can go wrong
call.py        a request as data, and how its answer is read
calls.py       every operation as such a call
retry.py       when a request is sent again, and after which pause
events.py      server-sent events, read from bytes
watch.py       waiting for a job: what to ask next, and when it is over
sync.py aio.py the two clients, the same but for `await`: they send, read and sleep
webhook.py     is a delivery from the service?
"""

from hyperdreambooth.client.aio import AsyncClient
from hyperdreambooth.client.calls import GenerateOptions, Photo, PhotoOptions, SubjectOptions
from hyperdreambooth.client.events import Event
from hyperdreambooth.client.problem import JobFailed, Problem
from hyperdreambooth.client.retry import Retry
from hyperdreambooth.client.sync import Client
from hyperdreambooth.client.webhook import ForgedDelivery, verify_webhook

__all__ = [
    "AsyncClient",
    "Client",
    "Event",
    "ForgedDelivery",
    "GenerateOptions",
    "JobFailed",
    "Photo",
    "PhotoOptions",
    "Problem",
    "Retry",
    "SubjectOptions",
    "verify_webhook",
]
