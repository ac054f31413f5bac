"""A photo goes in and pictures come out, over HTTP, through processes of their own: Redis, the API, a worker."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from api.server.testing import as_file, drawn_face, side_by_side
from core.settings import EMBEDDED_BUNDLE
from deploy.first_steps import DEMO_FACE
from deploy.local import LocalService
from hyperdreambooth.client import Client, JobFailed, Problem
from hyperdreambooth.schemas import JobStatus, SubjectAnswer
from worker.testing import read_calls

pytestmark = pytest.mark.process
FAKE = {"HDB_ENGINE": "worker.testing:FakeEngine"}
SLOWLY = '{"steps": 100, "step_seconds": 0.05}'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """With the fake engine: everything is real but the model."""
    with LocalService(tmp_path_factory.mktemp("service"), environ=FAKE) as running:
        yield running


@pytest.fixture
def client(service: LocalService) -> Iterator[Client]:
    script = service.folder / "fake-engine.json"
    script.unlink(missing_ok=True)
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def photo() -> bytes:
    return as_file(drawn_face(400))


def stored(service: LocalService) -> list[Path]:
    """All that is stored, but for what names no subject: usage, the base model, and erased responses."""
    store, unnamed = service.folder / "store", ("usage", "bundles", "idempotency")
    return [path for path in store.rglob("*") if path.is_file() and path.relative_to(store).parts[0] not in unnamed]


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_from_photo_to_pictures(service, client, photo):
    subject = client.create_subject(photo, consent=True, name="Nobody", steps=5)
    seen = []
    client.wait(subject.job_id, on_progress=seen.append, timeout=60)
    assert seen[-1].status is JobStatus.SUCCEEDED
    ready = client.subject(subject.id)
    assert (ready.status, ready.photos_kept) == ("ready", 0)
    assert len(client.weights(subject.id)) == ready.weights.bytes
    job = client.wait(client.generate(subject.id, "a pencil sketch of a [V] face", n=3, seed=5).id, timeout=60)
    assert [image.seed for image in job.images] == [5, 6, 7]
    for image in job.images:
        with Image.open(io.BytesIO(client.image(image.id))) as picture:
            assert picture.size == (image.width, image.height)
            assert picture.info["Comment"] == "made with AI"
    client.delete_subject(subject.id)
    with pytest.raises(Problem, match="no image"):
        client.image(job.images[0].id)
    assert [path for path in stored(service) if "eras" not in str(path)] == []


def test_a_subject_deleted_while_its_job_runs_leaves_nothing(service, client, photo):
    (service.folder / "fake-engine.json").write_text(SLOWLY)
    subject = client.create_subject(photo, consent=True)
    until(lambda: client.job(subject.job_id).step)  # claimed is not enough: the engine has to be at work
    client.delete_subject(subject.id)
    with pytest.raises(Problem, match="no subject"):
        client.subject(subject.id)
    until(lambda: read_calls(service.folder)[-1]["event"] == "personalize.stopped")
    time.sleep(0.5)
    assert [path for path in stored(service) if "eras" not in str(path)] == []


def test_a_running_job_can_be_called_off(service, client, photo):
    (service.folder / "fake-engine.json").write_text(SLOWLY)
    subject = client.create_subject(photo, consent=True)
    until(lambda: client.job(subject.job_id).status is JobStatus.RUNNING)
    client.cancel(subject.job_id)
    with pytest.raises(JobFailed, match="canceled"):
        client.wait(subject.job_id, timeout=20)
    client.delete_subject(subject.id)


def test_a_job_outlives_its_worker(service, client, photo):
    (service.folder / "fake-engine.json").write_text(SLOWLY)
    subject = client.create_subject(photo, consent=True)
    until(lambda: (client.job(subject.job_id).step or 0) > 3)
    service.worker.kill()
    (service.folder / "fake-engine.json").unlink()
    service.restart_worker()
    job = client.wait(subject.job_id, timeout=60)
    assert job.attempt == 2
    done = [entry["event"] for entry in read_calls(service.folder)].count("personalize.done")
    client.delete_subject(subject.id)
    assert done == 2, "one of this test, one of the first"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (as_file(Image.linear_gradient("L")), 422, "no-face"),
        (as_file(side_by_side(*[drawn_face().crop((60, 60, 260, 300))] * 2)), 422, "several-faces"),
        (as_file(drawn_face(20)), 422, "face-too-small"),
        (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", 415, "unsupported-media-type"),
        (as_file(drawn_face(200))[:2000], 422, "image-broken"),
        (b"\xff\xd8\xff" + bytes(40 * 2**20), 413, "upload-too-large"),
    ],
    ids=["no face", "two faces", "20 px", "PDF", "truncated", "40 MB"],
)
def test_bad_photos_are_refused_and_not_stored(service, client, data, status, code):
    before = stored(service)
    with pytest.raises(Problem) as caught:
        client.create_subject(data, consent=True)
    assert (caught.value.document.status, caught.value.code) == (status, code)
    assert stored(service) == before


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"subject_id": "sub_" + "0" * 25, "prompt": "a [V] face"}, 404, "subject-not-found"),
        ({"subject_id": "sub_" + "0" * 25, "prompt": "x" * 10_000}, 422, "invalid-input"),
        ({"subject_id": "sub_" + "0" * 25, "prompt": "a [V] face", "steps": 0}, 422, "invalid-input"),
        ({"subject_id": "sub_" + "0" * 25, "prompt": "a [V] face", "steps": 1000}, 422, "invalid-input"),
    ],
    ids=["unknown subject", "10,000 characters", "0 steps", "1,000 steps"],
)
def test_bad_requests_are_refused_and_not_stored(service, asked, status, code):
    before = stored(service)
    answer = httpx.post(f"{service.url}/v1/generations", json=asked)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert stored(service) == before


def test_those_who_wait_hold_up_no_one_else(service, client, photo):
    (service.folder / "fake-engine.json").write_text(SLOWLY)
    subject = client.create_subject(photo, consent=True)
    waiters = [threading.Thread(target=client.job, args=(subject.job_id,), kwargs={"wait": 2}) for _ in range(30)]
    for waiter in waiters:
        waiter.start()
    assert client.subject(subject.id).status == "personalizing"
    assert all(waiter.is_alive() for waiter in waiters)
    for waiter in waiters:
        waiter.join()
    client.delete_subject(subject.id)


@pytest.fixture
def tiny_bundle(tmp_path) -> Path:
    """The real classes with a few thousand random weights, in a folder as anybody's bundle is."""
    from core.lab.testing import TINY, random_pipeline

    folder = tmp_path / "tiny"
    random_pipeline().save_pretrained(folder)
    (folder / "bundle.json").write_text(TINY.to_json())
    return folder


@pytest.mark.slow
def test_the_real_method_runs_behind_the_service(tmp_path, tiny_bundle, photo):
    environ = {"HDB_BUNDLE": str(tiny_bundle), "HDB_DEVICE": "cpu"}
    with LocalService(tmp_path / "service", environ=environ) as service, Client(service.url) as client:
        (model,) = client.models()
        assert (model.id, model.has_hypernetwork) == ("tiny-random", False)
        subject = picture_of(client, photo, side=model.resolution)
        files = {kind: client.weights(subject, format=kind) for kind in ("peft", "kohya")}
        asked = {"files": {"photo": photo}, "data": {"consent": "true"}}
        more = httpx.post(f"{service.url}/v1/subjects/{subject.id}/photos", **asked).json()
        client.wait(more["job_id"], timeout=300)
        assert client.subject(subject).weights.sha256 != subject.weights.sha256
    opens_in_a_plain_pipeline(tiny_bundle, files, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not (EMBEDDED_BUNDLE / "model_index.json").is_file(), reason="the embedded bundle is not here")
def test_the_embedded_bundle_makes_pictures_of_a_face(tmp_path):
    with LocalService(tmp_path) as service, Client(service.url) as client:
        subject = picture_of(client, DEMO_FACE, side=128)
        (model,) = client.models()
        assert subject.bundle == model.id == "faces-128"
        assert subject.preview_ready, "with a hypernetwork or without"
        assert set(subject.likeness_by) == {"bundle"}
        assert subject.weights.bytes <= 120_000


def opens_in_a_plain_pipeline(bundle: Path, files: dict[str, bytes], folder: Path) -> None:
    """Weights that came over HTTP are loaded as anybody would load them."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(bundle, safety_checker=None)
    for kind, data in files.items():
        file = folder / f"{kind}.safetensors"
        file.write_bytes(data)
        pipeline.load_lora_weights(file)
        (adapters,) = {tuple(names) for names in pipeline.get_list_adapters().values()}
        assert len(adapters) == 1
        assert set(pipeline.get_list_adapters()) == {"unet", "text_encoder"}
        pipeline.unload_lora_weights()


def picture_of(client: Client, photo: bytes | Path, *, side: int) -> SubjectAnswer:
    """Personalizes and generates; the pictures are what they were asked to be, and the same when asked again."""
    subject = client.create_subject(photo, consent=True)
    client.wait(subject.job_id, timeout=900)
    asked = [client.generate(subject.id, "a [V] face", n=2, seed=1, steps=5) for _ in range(2)]
    jobs = [client.wait(job.id, timeout=300) for job in asked]
    first, again = ([client.image(image.id) for image in job.images] for job in jobs)
    assert first == again
    assert first[0] != first[1]
    with Image.open(io.BytesIO(first[0])) as picture:
        assert picture.size == (side, side)
        assert picture.convert("L").getextrema()[0] != picture.convert("L").getextrema()[1]
    return client.subject(subject.id)
