"""HyperDreamBooth from Python: one photo of a face to pictures of that person, over the service's HTTP API.

`Client` and `AsyncClient` are typed; `hyperdreambooth.schemas` is the whole contract; `hdb` is the command line.
"""

from hyperdreambooth.client import (
    AsyncClient,
    Client,
    ForgedDelivery,
    JobFailed,
    Photo,
    Problem,
    Retry,
    StreamedJobEvent,
    verify_webhook,
)

__version__ = "0.2.0"

__all__ = [
    "AsyncClient",
    "Client",
    "ForgedDelivery",
    "JobFailed",
    "Photo",
    "Problem",
    "Retry",
    "StreamedJobEvent",
    "__version__",
    "verify_webhook",
]
