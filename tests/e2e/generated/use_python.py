"""What a user writes on the client that openapi-python-client makes: `use_python.py URL PHOTO FOLDER`."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path

from made import Client
from made.api.batches import create_batch, read_batch, read_results
from made.api.generations import create_generation
from made.api.images import read_image
from made.api.jobs import follow_job, list_jobs, read_job
from made.api.service import list_models, ready
from made.api.subjects import add_photos, create_subject, delete_subject, read_subject, read_weights
from made.models import (
    AddPhotosBody,
    BatchRequest,
    BlendPart,
    CreateSubjectBody,
    GenerationRequest,
    JobAnswer,
    JobStatus,
    PersonalizeOptions,
    Problem,
)
from made.types import File

PROMPT = "a pencil sketch of a [V] face"
url, photo, folder = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])


def ended(client: Client, job_id: str) -> JobAnswer:
    job = read_job.sync(job_id, client=client, prefer="wait=60")
    assert isinstance(job, JobAnswer)
    assert job.status is JobStatus.SUCCEEDED, job
    return job


def face() -> File:
    return File(BytesIO(photo), file_name="me.jpg", mime_type="image/jpeg")


with Client(base_url=url, timeout=90) as client:
    assert ready.sync(client=client).status == "ready"
    assert list_models.sync(client=client).models
    options = PersonalizeOptions(steps=3, seed=5)
    subject = create_subject.sync(
        client=client,
        body=CreateSubjectBody(photo=[face()], consent=True, keep_photos=True, name="Ada", options=options),
    )
    ended(client, subject.job_id)
    subject = read_subject.sync(subject.id, client=client)
    assert (subject.status, subject.name, subject.photos_kept) == ("ready", "Ada", 1)
    more = add_photos.sync(subject.id, client=client, body=AddPhotosBody(photo=[face(), face()], consent=True))
    ended(client, more.job_id)
    assert read_weights.sync(subject.id, client=client).payload.read()

    refused = create_generation.sync(client=client, body=GenerationRequest(prompt=PROMPT))
    assert isinstance(refused, Problem)
    assert refused.code == "invalid-input"
    parts = [BlendPart(subject_id=subject.id, weight=1.0), BlendPart(subject_id=subject.id, weight=2.0)]
    for asked in (
        GenerationRequest(prompt=PROMPT, subject_id=subject.id, n=2),
        GenerationRequest(prompt=PROMPT, blend=parts),
    ):
        job = create_generation.sync(client=client, body=asked)
        assert isinstance(job, JobAnswer), job
        events = follow_job.sync(job.id, client=client)
        assert events.rstrip().rpartition("event: ")[2].startswith("succeeded"), events
        for image in ended(client, job.id).images:
            png = read_image.sync(image.id, client=client).payload.read()
            assert png.startswith(b"\x89PNG")
            (folder / f"{image.id}.png").write_bytes(png)
            webp = read_image.sync(image.id, client=client, accept="image/webp").payload.read()
            assert webp[8:12] == b"WEBP"
    assert len(list_jobs.sync(client=client, subject_id=subject.id).jobs) == 4

    batch = create_batch.sync(client=client, body=BatchRequest(prompts=[PROMPT] * 2, subject_ids=[subject.id]))
    while read_batch.sync(batch.id, client=client).status != "completed":
        pass
    items = [json.loads(line) for line in read_results.sync(batch.id, client=client).splitlines()]
    assert [item["status"] for item in items] == ["succeeded"] * 2
    assert delete_subject.sync(subject.id, client=client).subject_id == subject.id
    assert read_subject.sync(subject.id, client=client).code == "subject-not-found"
