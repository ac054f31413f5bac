"""Where everything lives in the store. The tenant is part of every key; what a job makes lies under the job.

Keys are parts of letters and digits, `.`, `_` and `-`, separated by slashes.

{tenant}/subjects/{subject}/subject.json       the document
{tenant}/subjects/{subject}/photos/{job}/0.png   aligned, until personalizing ends (or kept)
{tenant}/subject-jobs/{subject}/{job}          an empty marker: the job belongs to the subject, and dies with it
{tenant}/job-list/{when}.{kind}.{state}        an empty object: that there is such a job (jobs/archive.py)
{tenant}/jobs/{job}/{fence}/...                what one attempt made; the number of its claim keeps attempts apart
{tenant}/jobs/{job}/outcome.json               how the job ended, written once
{tenant}/batches/{batch}.json                  a batch (batches/); written last: with it the batch is there
{tenant}/batch-items/{batch}/{part}.jsonl      its items, a hundred in a part
{tenant}/batch-items/{batch}/tally.json        the state of each of its items, a character each
{tenant}/batch-items/{batch}/canceled          an empty marker: nothing more of it is to be done
{tenant}/batch-items/{batch}/erase/{subject}   an empty marker: the subject was deleted, its items are to be blanked
{tenant}/subject-batches/{subject}/{batch}     an empty marker: the batch has items about the subject
batches/open/{tenant}/{batch}                  an empty marker: the scheduler has something to do with it
batches/over/{tenant}/{batch}                  an empty marker: all its items are over
batches/deleted/{tenant}/{batch}               it is gone, and what is left of it is being erased
batches/late/{tenant}/{batch}                  it is erased, but a late worker may still write to its jobs
pending/{tenant}/{job}.json                    what was accepted and is not over
erasures/{tenant}/{subject}.json               what was deleted: ids and a time, kept for a day
erasing/{tenant}/{subject}                     an empty marker: a late worker may still write to it
keys/{key}.json                                an API key's hash, and whose it is
idempotency/{day}/{tenant}/{digest}.json       the response to a creating request, for a day (tenants/idempotency.py)
idempotency/{day}/{tenant}/about/{subject}/{digest}   an empty marker: that response is about the subject
bundles/{fingerprint}-{basis}.json             what exports need to know of a base model (subjects/export_layouts.py)
bundles/model-{digest}.json                    what prompts and sizes a bundle takes (models.py)
usage/{day}/{tenant}/{facts}                   an empty object: a job ended; its name says how (tenants/usage.py)
{tenant}/packs/{pack}.json                     a list of prompts (batches/packs.py)
{tenant}/webhooks/{webhook}.json               an address of a tenant, and the secret that messages are signed with
deliveries/{tenant}/{webhook}/{message}.json   a message to it, and how the attempts went (webhooks/)
undelivered/{tenant}/{webhook}/{message}       an empty marker: that delivery is not over
"""

from __future__ import annotations

import re

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_PREFIX = re.compile(rf"(?:{_PART}/)*(?:{_PART})?")

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
UNREADABLE = "unreadable/"
_ASIDE = ".unreadable"
RESERVED = frozenset(
    {"pending", "erasures", "erasing", "keys", "idempotency", "usage", "bundles"}
    | {
        "batches",
        "webhooks",
        "deliveries",
        "undelivered",
        "unreadable",
        "bells",
        "queued",
        "running",
        "turn",
        "failing",
        "none",
    }
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


def jobs(tenant: str) -> str:
    """The prefix of what a tenant's jobs made."""
    return f"{tenant}/jobs/"


def job(tenant: str, job_id: str) -> str:
    """The prefix of what a job made."""
    return f"{jobs(tenant)}{job_id}/"


def attempt(tenant: str, job_id: str, fence: int) -> str:
    """The prefix of what one attempt at a job made."""
    return f"{job(tenant, job_id)}{fence}/"


def outcome(tenant: str, job_id: str) -> str:
    """How a job ended."""
    return f"{job(tenant, job_id)}outcome.json"


def pending(tenant: str, job_id: str) -> str:
    """What was accepted."""
    return f"{PENDING}{tenant}/{job_id}.json"


def aside(key: str) -> str:
    """Where a record goes that cannot be read: into the folder of its subject or job, so that it is erased with it."""
    first, _, rest = key.partition("/")
    if f"{first}/" == PENDING:
        tenant, _, name = rest.partition("/")
        return f"{job(tenant, name.removesuffix('.json'))}accepted.json{_ASIDE}"
    if first not in RESERVED and rest.startswith(("subjects/", "jobs/")):
        return f"{key}{_ASIDE}"
    return f"{UNREADABLE}{key}"


def is_aside(key: str) -> bool:
    """Whether it is a record that cannot be read."""
    return key.endswith(_ASIDE)


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


def packs(tenant: str) -> str:
    """The prefix of a tenant's packs."""
    return f"{tenant}/packs/"


def pack(tenant: str, pack_id: str) -> str:
    """A pack's document."""
    return f"{packs(tenant)}{pack_id}.json"


def model(digest: str) -> str:
    """What prompts and sizes a bundle takes."""
    return f"{BUNDLES}model-{digest}.json"


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


def batch_part(tenant: str, batch_id: str, part: int) -> str:
    """A hundred items of a batch."""
    return f"{batch_items(tenant, batch_id)}{part:03}.jsonl"


def batch_states(tenant: str, batch_id: str) -> str:
    """The states of a batch's items."""
    return f"{batch_items(tenant, batch_id)}tally.json"


def batch_canceled(tenant: str, batch_id: str) -> str:
    """The marker of a batch that was canceled."""
    return f"{batch_items(tenant, batch_id)}canceled"


def blanked(tenant: str, batch_id: str) -> str:
    """The prefix of the subjects whose items are to be blanked."""
    return f"{batch_items(tenant, batch_id)}erase/"


def subject_batches(tenant: str, subject_id: str) -> str:
    """The prefix of the markers of the batches that have items about a subject."""
    return f"{tenant}/subject-batches/{subject_id}/"


def image_id(job_id: str, index: int) -> str:
    """The public id of a job's image: the same whenever it is run. A personalizing job's previews are its images."""
    return f"img_{job_id.removeprefix('job_')}-{index}"


def picture(tenant: str, image: str, fence: int) -> str:
    """Where the attempt `fence` at an image's job has put the image."""
    return f"{attempt(tenant, job_of_image(image), fence)}{image.rpartition('-')[2]}.png"


def weights(tenant: str, job_id: str, fence: int, stage: str) -> str:
    """Where an attempt has put weights: `stage` is `preview` or `refined`."""
    return f"{attempt(tenant, job_id, fence)}{stage}.lidb"


def job_of_image(image: str) -> str:
    """The job that made the image."""
    return f"job_{image.removeprefix('img_').partition('-')[0]}"


def check_key(key: str) -> str:
    """`key` itself. Raises ValueError when it is not a key."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_prefix(prefix: str, *, folder: bool = False) -> str:
    """`prefix` itself. Raises ValueError when no key can start with it, or it is no `folder` (ends in a slash)."""
    if not _PREFIX.fullmatch(prefix) or (folder and not prefix.endswith("/")):
        raise ValueError(f"not a store prefix: {prefix!r}")
    return prefix
