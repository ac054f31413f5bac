"""Every error of the project, in one tree; the class docstring is the message, `detail` says what to do about it.

    HyperDreamBoothError
    ├ InvalidInput
    │  ├ UploadRefused
    │  │  ├ UploadTooLarge  ├ UnsupportedMediaType  ├ ImageBroken  ├ ImageTooManyPixels  └ ImageAnimated
    │  ├ PhotoRefused
    │  │  ├ NoFace  ├ SeveralFaces  ├ FaceTooSmall  ├ FaceTooBlurred  ├ FaceTurnedAway  ├ FaceTooDark
    │  │  ├ FaceTooBright  ├ FaceCutOff  └ DifferentPeople
    │  ├ WeightsRefused
    │  │  ├ WeightsFormat  └ WeightsMismatch
    │  ├ TenantRefused  ├ WebhookRefused
    │  └ IdempotencyKeyReused
    ├ NotFound
    │  ├ SubjectNotFound  ├ JobNotFound  ├ BatchNotFound  ├ ImageNotFound  ├ ObjectNotFound  ├ KeyNotFound
    │  ├ PackNotFound  └ WebhookNotFound
    ├ Conflict
    │  ├ SubjectNotReady  ├ SubjectBusy  ├ JobOver  ├ BatchOver  ├ ResponseErased  ├ TooManyWebhooks  └ WebhookDisabled
    ├ Unavailable
    │  ├ QueueFull  ├ ServiceBusy  ├ RateLimited  ├ RequestInProgress  ├ TooManyFollowers  ├ BrokerUnavailable
    │  └ StoreUnavailable
    ├ JobStopped
    │  ├ JobCanceled  ├ OutOfTime  ├ OutOfMemory  └ InternalFault
    ├ BundleError
    └ SettingsError

`code` is stable and public: it is in job records and in the `type` of problem documents. `retryable` says whether the
same call can succeed later without being changed. Nothing here knows HTTP: the statuses are in api/server/errors.py.
The code `attempts-exhausted` of a failed job is set by core/jobs/lua/reap.lua.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class HyperDreamBoothError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, field: str | None = None) -> None:
        """`detail` says what happened and what to do; `field` names the part of the request that is to blame."""
        self.detail = detail or self.title()
        self.field = field
        super().__init__(self.detail)

    @classmethod
    def title(cls) -> str:
        """The message of this kind of error: the first line of the class docstring."""
        return inspect.cleandoc(cls.__doc__ or cls.__name__).splitlines()[0]


class InvalidInput(HyperDreamBoothError):
    """The request cannot be carried out as it stands."""

    code = "invalid-input"


class UploadRefused(InvalidInput):
    """The uploaded file was refused."""

    code = "upload-refused"


class UploadTooLarge(UploadRefused):
    """The uploaded file is too large."""

    code = "upload-too-large"


class UnsupportedMediaType(UploadRefused):
    """The uploaded file is not a picture of a supported type."""

    code = "unsupported-media-type"


class ImageBroken(UploadRefused):
    """The uploaded picture cannot be decoded."""

    code = "image-broken"


class ImageTooManyPixels(UploadRefused):
    """The uploaded picture has too many pixels."""

    code = "image-too-many-pixels"


class ImageAnimated(UploadRefused):
    """The uploaded picture has more than one frame."""

    code = "image-animated"


class PhotoRefused(InvalidInput):
    """The photo cannot be used for personalizing."""

    code = "photo-refused"


class NoFace(PhotoRefused):
    """No face was found in the photo."""

    code = "no-face"


class SeveralFaces(PhotoRefused):
    """More than one face was found in the photo."""

    code = "several-faces"

    def __init__(self, detail: str = "", *, count: int = 2, field: str | None = None) -> None:
        """`count` is the number of faces found."""
        super().__init__(detail or f"{count} faces were found: send a photo with one person only.", field=field)
        self.count = count


class FaceTooSmall(PhotoRefused):
    """The face in the photo is too small."""

    code = "face-too-small"


class FaceTooBlurred(PhotoRefused):
    """The face in the photo is too blurred."""

    code = "face-too-blurred"


class FaceTurnedAway(PhotoRefused):
    """The face in the photo is turned away from the camera."""

    code = "face-turned-away"


class FaceTooDark(PhotoRefused):
    """The face in the photo is too dark."""

    code = "face-too-dark"


class FaceTooBright(PhotoRefused):
    """The face in the photo is too bright."""

    code = "face-too-bright"


class FaceCutOff(PhotoRefused):
    """The face in the photo is cut off by its edge."""

    code = "face-cut-off"


class DifferentPeople(PhotoRefused):
    """The photos show different people."""

    code = "different-people"


class WeightsRefused(InvalidInput):
    """The weights file was refused."""

    code = "weights-refused"


class WeightsFormat(WeightsRefused):
    """The file is not a .lidb file of a known version."""

    code = "weights-format"


class WeightsMismatch(WeightsRefused):
    """The weights were made with another bundle, basis or set of targets."""

    code = "weights-mismatch"


class TenantRefused(InvalidInput):
    """This cannot be a tenant's name."""

    code = "tenant-refused"


class WebhookRefused(InvalidInput):
    """This service does not send anything to that address."""

    code = "webhook-refused"


class IdempotencyKeyReused(InvalidInput):
    """This Idempotency-Key was sent with another request before."""

    code = "idempotency-key-reused"


class NotFound(HyperDreamBoothError):
    """There is no such thing."""

    code = "not-found"


class SubjectNotFound(NotFound):
    """There is no such subject."""

    code = "subject-not-found"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job-not-found"


class BatchNotFound(NotFound):
    """There is no such batch."""

    code = "batch-not-found"


class ImageNotFound(NotFound):
    """There is no such image."""

    code = "image-not-found"


class ObjectNotFound(NotFound):
    """The store has no such object."""

    code = "object-not-found"


class KeyNotFound(NotFound):
    """There is no such key."""

    code = "key-not-found"


class PackNotFound(NotFound):
    """There is no such pack."""

    code = "pack-not-found"


class WebhookNotFound(NotFound):
    """There is no such webhook."""

    code = "webhook-not-found"


class Conflict(HyperDreamBoothError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class SubjectNotReady(Conflict):
    """The subject is not personalized yet."""

    code = "subject-not-ready"


class SubjectBusy(Conflict):
    """The subject is being personalized."""

    code = "subject-busy"


class JobOver(Conflict):
    """The job is already over."""

    code = "job-over"


class BatchOver(Conflict):
    """The batch is already over."""

    code = "batch-over"


class ResponseErased(Conflict):
    """What this Idempotency-Key made was deleted."""

    code = "answer-erased"


class TooManyWebhooks(Conflict):
    """This tenant has as many webhooks as it may have."""

    code = "too-many-webhooks"


class WebhookDisabled(Conflict):
    """The webhook is disabled: its address said that it is gone."""

    code = "webhook-disabled"


class Unavailable(HyperDreamBoothError):
    """The service cannot take this now; try again later."""

    code = "unavailable"
    retryable = True

    def __init__(self, detail: str = "", *, retry_after: float = 1.0, field: str | None = None) -> None:
        """`retry_after` is the number of seconds after which trying again makes sense."""
        super().__init__(detail, field=field)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """The queue is full."""

    code = "queue-full"


class ServiceBusy(Unavailable):
    """As many jobs of all callers are waiting as may."""

    code = "service-busy"


class RateLimited(Unavailable):
    """This tenant has made too many requests in too short a time."""

    code = "rate-limited"


class RequestInProgress(Unavailable):
    """A request with this Idempotency-Key is being carried out."""

    code = "request-in-progress"


class TooManyFollowers(Unavailable):
    """Too many streams of events are open."""

    code = "too-many-followers"


class BrokerUnavailable(Unavailable):
    """The queue cannot be reached."""

    code = "broker-unavailable"


class StoreUnavailable(Unavailable):
    """The store cannot be reached."""

    code = "store-unavailable"


class JobStopped(HyperDreamBoothError):
    """The job was stopped."""

    code = "job-stopped"


class JobCanceled(JobStopped):
    """The job was canceled."""

    code = "job-canceled"


class OutOfTime(JobStopped):
    """The job took longer than is allowed."""

    code = "out-of-time"


class OutOfMemory(JobStopped):
    """The device's memory was not enough for the job."""

    code = "out-of-memory"


class InternalFault(JobStopped):
    """The job failed for a reason that is not the caller's."""

    code = "internal-fault"


class BundleError(HyperDreamBoothError):
    """The bundle cannot be loaded or does not fit."""

    code = "bundle-error"


class SettingsError(HyperDreamBoothError):
    """The settings are wrong."""

    code = "settings-error"
