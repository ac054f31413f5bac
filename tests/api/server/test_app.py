from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter
from pydantic import SecretStr

from api.server.app import create_app
from api.server.errors import STATUS
from api.server.testing import as_file, drawn_face, side_by_side
from core.errors import SettingsError, StoreUnavailable
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.description import describe_folder
from core.jobs.archive import JobArchive
from core.log import configure_logging
from core.services import open_services
from core.settings import EMBEDDED_BUNDLE, Settings
from core.tracing import trace_id

KEYS = ("2d711642b726b04401627ca9fbac32f5", "correct-horse-battery-staple")
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "worker")


def local(app, **options):
    return TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 5), raise_server_exceptions=False, **options)


def test_no_model_is_ever_loaded():
    """Not through others either, and not by the face finder."""
    program = (
        "import sys, anyio, api.server.app, hyperdreambooth.client, api.__main__, api.server.dependencies as d; "
        "anyio.run(d.the_photo_checker); "
        "api.server.app.create_app(); print(*(name for name in sys.modules if name.partition('.')[0] in sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HDB_DATA_DIR", str(tmp_path))
    assert create_app().state.settings.data_dir == tmp_path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_without_keys_only_this_machine_is_served(host, tmp_path):
    with pytest.raises(SettingsError, match="HDB_API_KEYS"):
        create_app(Settings(api_host=host, data_dir=tmp_path))
    create_app(Settings(api_host=host, data_dir=tmp_path, api_keys=(SecretStr(KEYS[0]),)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_this_machine_needs_no_keys(host, tmp_path):
    create_app(Settings(api_host=host, data_dir=tmp_path))


def test_a_wrong_setting_ends_the_program_with_a_sentence(tmp_path):
    environ = {"HDB_API_HOST": "0.0.0.0", "HDB_DATA_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "api"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "HDB_API_KEYS" in done.stderr
    assert "Traceback" not in done.stderr


def test_strangers_are_not_served_without_keys(client, settings, services):
    app = create_app(settings, services=services)
    stranger = TestClient(app, "http://127.0.0.1:8000", client=("10.0.0.7", 5))
    assert stranger.get("/v1/subjects").status_code == 403
    assert stranger.get("/healthz").status_code == 200
    renamed = local(app).get("/v1/subjects", headers={"host": "evil.example"})
    assert renamed.json()["code"] == "forbidden"
    page = local(app).get("/v1/subjects", headers={"origin": "https://evil.example"})
    assert page.json()["code"] == "forbidden"
    assert local(app).get("/v1/subjects", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_keys_are_asked_for_when_there_are_any(redis_url, services, tmp_path):
    settings = Settings(api_host="0.0.0.0", api_keys=tuple(map(SecretStr, KEYS)), data_dir=tmp_path)
    client = TestClient(create_app(settings, services=services), client=("10.0.0.7", 5))
    for headers in ({}, *({"authorization": wrong} for wrong in ("Bearer three", f"Basic {KEYS[0]}", KEYS[0]))):
        refused = client.get("/v1/subjects", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    for key in KEYS:
        assert client.get("/v1/subjects", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert client.get("/readyz?exclude=workers").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/nothing/", 404, "not-found"),
        ("GET", "/docs/nothing.js", 404, "not-found"),
        ("GET", "/v1/nothing", 404, "not-found"),
        ("PUT", "/v1/subjects", 405, "method-not-allowed"),
        ("POST", "/healthz", 405, "method-not-allowed"),
    ],
)
def test_unknown_paths_and_methods_are_problems(client, method, path, status, code):
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("allow" in answer.headers) == (status == 405)


def test_a_mistake_of_ours_is_a_problem_that_tells_nothing(client, services, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(services.subjects, "page", fail)
    answer = client.get("/v1/subjects")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_health_and_readiness(client, services):
    assert client.get("/healthz").json() == {"status": "ok"}
    checks = {"redis": "ok", "store": "ok", "workers": "none", "erasures": "ok"}
    assert client.get("/readyz?exclude=workers").json() == {"status": "ready", "checks": checks}


@pytest.mark.parametrize(("loaded", "answer"), [(True, "ok"), (False, "none-loaded")])
def test_it_is_ready_when_a_worker_has_loaded_its_model(client, services, loaded, answer):
    services.workers.beat("one", is_loaded=loaded)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["workers"]) == (200 if loaded else 503, answer)


def test_a_store_that_takes_no_writes_is_not_ready(client, services, monkeypatch):
    def full():
        raise StoreUnavailable

    services.workers.beat("one", is_loaded=True)
    monkeypatch.setattr(services.store, "ping", full)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["store"]) == (503, "store-unavailable")


def test_models_are_read_from_the_bundles_folder(client):
    (model,) = client.get("/v1/models").json()["models"]
    config = BundleConfig.from_json((EMBEDDED_BUNDLE / "bundle.json").read_text())
    assert (model["id"], model["resolution"], model["steps"]) == (config.name, config.resolution, config.sampling.steps)
    length = json.loads((EMBEDDED_BUNDLE / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    assert model["limits"]["prompt_tokens"] == length - 2


def test_models_of_the_hub_are_known_from_their_workers(services, tmp_path, monkeypatch):
    monkeypatch.setattr("api.server.model._FRESH_SECONDS", 0.0)
    client = local(create_app(Settings(bundle="owner/some-model", data_dir=tmp_path), services=services))
    (hub,) = client.get("/v1/models").json()["models"]
    assert (hub["id"], hub["resolution"], hub["has_hypernetwork"]) == ("some-model", None, False)
    assert hub["limits"]["prompt_tokens"] is None
    described = describe_folder(EMBEDDED_BUNDLE, "x")
    services.models.put("owner/some-model", described.to_json())
    (hub,) = client.get("/v1/models").json()["models"]
    assert (hub["id"], hub["resolution"]) == (described.config.name, described.config.resolution)
    assert hub["limits"]["side_multiple"] == described.pixels_multiple
    services.models.put("owner/some-model", b"{}")
    assert client.get("/v1/models").json()["models"] == [hub], "what cannot be read changes nothing"


def test_without_redis_it_is_503_within_a_second(photo, finder, tmp_path):
    from api.server.dependencies import the_photo_checker

    settings = Settings(redis_url="redis://127.0.0.1:1/0", data_dir=tmp_path)
    app = create_app(settings, services=open_services(settings))
    app.dependency_overrides[the_photo_checker] = lambda: finder
    client = local(app)
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        answer = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 1, "the quickest, since the machine may be busy with other things"
    assert (answer.status_code, answer.json()["code"]) == (503, "broker-unavailable")
    assert answer.json()["retryable"] is True
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/v1/jobs/job_" + "0" * 25).status_code == 503
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "unready",
        "checks": {"redis": "broker-unavailable", "store": "ok", "workers": "unknown", "erasures": "unknown"},
    }
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_every_code_has_a_status_that_the_contract_knows():
    assert set(STATUS.values()) <= {400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503}


@pytest.mark.parametrize(
    ("photo", "code", "faces"),
    [
        (Image.linear_gradient("L").resize((20, 20)), "face-too-small", None),
        (Image.linear_gradient("L"), "no-face", None),
        (drawn_face(64), "face-too-small", None),
        (drawn_face().filter(ImageFilter.GaussianBlur(8)), "face-too-blurred", None),
        (side_by_side(*[drawn_face().crop((60, 60, 260, 300))] * 2), "several-faces", 2),
    ],
    ids=["20 px", "nothing", "small", "blurred", "two"],
)
def test_the_real_finder_says_why_not(settings, services, store, photo, code, faces):
    client = local(create_app(settings, services=services))
    answer = client.post("/v1/subjects", files={"photo": as_file(photo, "PNG")}, data={"consent": "true"})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, "photo")
    assert answer.json().get("faces") == faces
    assert list(store.list("")) == []


def test_the_real_finder_takes_a_good_photo(settings, services, store):
    client = local(create_app(settings, services=services))
    answer = client.post("/v1/subjects", files={"photo": as_file(drawn_face(640))}, data={"consent": "true"})
    assert answer.status_code == 202, answer.text
    (crop,) = [store.get(key) for key in store.list("") if key.endswith(".png")]
    with Image.open(io.BytesIO(crop)) as image:
        assert 380 < image.width == image.height < 460


@pytest.fixture
def log():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("INFO", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def test_each_request_is_one_line_of_the_log_with_its_ids(client, log):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-Id": "mine-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    for path in ("/v1/jobs/job_nobody", "/made/up", "/healthz", "/readyz?exclude=workers", "/metrics"):
        client.get(path, headers=headers)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    answered = [line for line in lines if line["event"] == "request.answered"]
    assert [(line["route"], line["status"]) for line in answered] == [("/v1/jobs/{job_id}", 404), ("none", 404)]
    assert {(line["request_id"], line["trace_id"], line["method"]) for line in answered} == {("mine-1", trace, "GET")}


def test_a_job_belongs_to_the_trace_of_its_request(client, services, subject_id):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    asked = {"subject_id": subject_id, "prompt": "a [V] face"}
    job = client.post("/v1/generations", json=asked, headers=headers).json()["id"]
    accepted = JobArchive(services.store).accepted("local", job)
    assert trace_id(accepted.traceparent) == trace
    fresh = client.post("/v1/generations", json=asked, headers={"traceparent": "nonsense"}).json()["id"]
    assert trace_id(JobArchive(services.store).accepted("local", fresh).traceparent) not in ("", trace)
