"""Where everything lives in the store. The tenant is part of every key; what a job makes lies under the job.

{tenant}/subjects/{subject}/subject.json       the document
{tenant}/subjects/{subject}/photos/{job}/0.png   aligned, until personalising ends (or kept)
{tenant}/subject-jobs/{subject}/{job}          an empty marker: the job belongs to the subject, and dies with it
{tenant}/job-list/{when}.{kind}.{state}        an empty object: that there is such a job (listing.py)
{tenant}/jobs/{job}/{fence}/...                what one attempt made; the number of its claim keeps attempts apart
{tenant}/jobs/{job}/outcome.json               how the job ended, written once
{tenant}/batches/{batch}.json                  a batch (batches.py); written last: with it the batch is there
{tenant}/batch-items/{batch}/{part}.jsonl      its items, a hundred in a part
{tenant}/batch-items/{batch}/tally.json        how each of its items stands, a letter each
{tenant}/batch-items/{batch}/canceled          an empty marker: nothing more of it is to be done
{tenant}/batch-items/{batch}/erase/{subject}   an empty marker: the subject was deleted, its items are to be blanked
{tenant}/subject-batches/{subject}/{batch}     an empty marker: the batch has items about the subject
batches/open/{tenant}/{batch}                  an empty marker: the scheduler has something to do with it (feeding.py)
batches/over/{tenant}/{batch}                  an empty marker: all its items are over
batches/deleted/{tenant}/{batch}               it is gone, and what is left of it is being erased
batches/late/{tenant}/{batch}                  it is erased, but somebody who was late may still write to its jobs
pending/{tenant}/{job}.json                    what was accepted and is not over
erasures/{tenant}/{subject}.json               what was deleted: ids and a time, kept for a day
erasing/{tenant}/{subject}                     an empty marker: somebody who was late may still write to it
keys/{key}.json                                an API key's hash, and whose it is
idempotency/{day}/{tenant}/{digest}.json       what was answered to a creating request, for a day (idempotency.py)
idempotency/{day}/{tenant}/about/{subject}/{digest}   an empty marker: that answer is about the subject
bundles/{fingerprint}-{basis}.json             what exports need to know of a base model (layouts.py)
usage/{day}/{tenant}/{facts}                   an empty object: a job ended; its name says how (usage.py)
{tenant}/webhooks/{webhook}.json               where a tenant wants to be told, and the secret it is signed with
deliveries/{tenant}/{webhook}/{message}.json   what is told there, and how the attempts went (webhooks.py)
undelivered/{tenant}/{webhook}/{message}       an empty marker: that delivery is not over
"""

from __future__ import annotations

PENDING = "pending/"
ERASURES = "erasures/"
ERASING = "erasing/"
API_KEYS = "keys/"
IDEMPOTENCY = "idempotency/"
USAGE = "usage/"
OPEN_BATCHES = "batches/open/"
OVER_BATCHES = "batches/over/"
DELETED_BATCHES = "batches/deleted/"
LATE_BATCHES = "batches/late/"
BUNDLES = "bundles/"
DELIVERIES = "deliveries/"
UNDELIVERED = "undelivered/"
RESERVED = frozenset(
    {"pending", "erasures", "erasing", "keys", "idempotency", "usage", "bundles"}
    | {"batches", "webhooks", "deliveries", "undelivered", "bells", "queued", "running", "turn"}
)
"""Names that no tenant may have: they stand beside the tenants in the store, or in Redis."""


def subjects(tenant: str) -> str:
    """The prefix of a tenant's subjects."""
    return f"{tenant}/subjects/"


def subject(tenant: str, subject_id: str) -> str:
    """The prefix of what a subject has besides its jobs."""
    return f"{tenant}/subjects/{subject_id}/"


def document(tenant: str, subject_id: str) -> str:
    """A subject's document."""
    return f"{subject(tenant, subject_id)}subject.json"


def photos(tenant: str, subject_id: str, job_id: str) -> str:
    """The prefix of the photos that a subject's job came with."""
    return f"{subject(tenant, subject_id)}photos/{job_id}/"


def markers(tenant: str, subject_id: str) -> str:
    """The prefix of the markers of a subject's jobs."""
    return f"{tenant}/subject-jobs/{subject_id}/"


def job_list(tenant: str) -> str:
    """The prefix of the names of a tenant's jobs."""
    return f"{tenant}/job-list/"


def job(tenant: str, job_id: str) -> str:
    """The prefix of what a job made."""
    return f"{tenant}/jobs/{job_id}/"


def attempt(tenant: str, job_id: str, fence: int) -> str:
    """The prefix of what one attempt at a job made."""
    return f"{job(tenant, job_id)}{fence}/"


def outcome(tenant: str, job_id: str) -> str:
    """How a job ended."""
    return f"{job(tenant, job_id)}outcome.json"


def pending(tenant: str, job_id: str) -> str:
    """What was accepted."""
    return f"{PENDING}{tenant}/{job_id}.json"


def erasure(tenant: str, subject_id: str) -> str:
    """A subject's tombstone."""
    return f"{ERASURES}{tenant}/{subject_id}.json"


def erasing(tenant: str, subject_id: str) -> str:
    """That a deleted subject is to be erased again."""
    return f"{ERASING}{tenant}/{subject_id}"


def api_key(key_id: str) -> str:
    """An API key's document."""
    return f"{API_KEYS}{key_id}.json"


def answer(day: str, tenant: str, digest: str) -> str:
    """What was answered to a creating request on a day (`2024-05-04`, UTC)."""
    return f"{IDEMPOTENCY}{day}/{tenant}/{digest}.json"


def about(day: str, tenant: str, subject_id: str) -> str:
    """The prefix of the markers of a day's answers about a subject."""
    return f"{IDEMPOTENCY}{day}/{tenant}/about/{subject_id}/"


def usage(day: str, tenant: str) -> str:
    """The prefix of what a tenant used on a day (`2024-05-04`, UTC)."""
    return f"{USAGE}{day}/{tenant}/"


def layout(fingerprint: str, basis: str) -> str:
    """What exports need to know of a base model."""
    return f"{BUNDLES}{fingerprint}-{basis}.json"


def webhooks(tenant: str) -> str:
    """The prefix of a tenant's webhooks."""
    return f"{tenant}/webhooks/"


def webhook(tenant: str, webhook_id: str) -> str:
    """A webhook's document."""
    return f"{webhooks(tenant)}{webhook_id}.json"


def deliveries(tenant: str, webhook_id: str) -> str:
    """The prefix of what was, and is to be, delivered to a webhook."""
    return f"{DELIVERIES}{tenant}/{webhook_id}/"


def undelivered(tenant: str, webhook_id: str) -> str:
    """The prefix of the markers of deliveries to a webhook that are not over."""
    return f"{UNDELIVERED}{tenant}/{webhook_id}/"


def batches(tenant: str) -> str:
    """The prefix of a tenant's batches."""
    return f"{tenant}/batches/"


def batch(tenant: str, batch_id: str) -> str:
    """A batch's document."""
    return f"{batches(tenant)}{batch_id}.json"


def batch_items(tenant: str, batch_id: str) -> str:
    """The prefix of what a batch has besides its document."""
    return f"{tenant}/batch-items/{batch_id}/"


def blanked(tenant: str, batch_id: str) -> str:
    """The prefix of the subjects whose items are to be blanked."""
    return f"{batch_items(tenant, batch_id)}erase/"


def subject_batches(tenant: str, subject_id: str) -> str:
    """The prefix of the markers of the batches that have items about a subject."""
    return f"{tenant}/subject-batches/{subject_id}/"


def image_id(job_id: str, index: int) -> str:
    """The public id of a job's image: the same whenever it is run. A personalising job's previews are its images."""
    return f"img_{job_id.removeprefix('job_')}-{index}"


def job_of_image(image: str) -> str:
    """The job that made the image."""
    return f"job_{image.removeprefix('img_').partition('-')[0]}"
