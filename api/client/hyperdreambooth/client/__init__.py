"""The service from Python, typed, blocking (`Client`) or not (`AsyncClient`).

    with Client() as client:
        subject = client.personalize(Path("me.jpg"), consent=True, on_progress=print)
        job = client.wait(client.generate(subject, "a pencil sketch of a [V] face", n=4))
        pictures = [client.image(image) for image in job.images or []]

aio/           the asynchronous client: sending, and the methods of each resource
sync/          the blocking client, made from aio/ by `make generate`
options.py     the keyword options of the methods, made from the schemas
refs.py        how methods name subjects, jobs, images, ...
forms.py       the bodies of requests
request.py     a request as data, and how its answer is read
retry.py       when a request is sent again, and after which pause
events.py      server-sent events, read from bytes
waiting.py     waiting for a job or a batch: the next request, the deadline
problem.py     the exceptions
webhook.py     checks the signature of a webhook's message
"""

from hyperdreambooth.client.aio.client import AsyncClient
from hyperdreambooth.client.events import StreamedJobEvent
from hyperdreambooth.client.options import GenerateOptions, PhotoOptions, SubjectOptions
from hyperdreambooth.client.problem import JobFailed, Problem
from hyperdreambooth.client.refs import Photo
from hyperdreambooth.client.retry import Retry
from hyperdreambooth.client.sync.client import Client
from hyperdreambooth.client.webhook import ForgedDelivery, verify_webhook

__all__ = [
    "AsyncClient",
    "Client",
    "ForgedDelivery",
    "GenerateOptions",
    "JobFailed",
    "Photo",
    "PhotoOptions",
    "Problem",
    "Retry",
    "StreamedJobEvent",
    "SubjectOptions",
    "verify_webhook",
]
