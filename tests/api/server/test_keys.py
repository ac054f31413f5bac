from __future__ import annotations

import anyio
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.server import auth
from api.server.app import create_app
from core.errors import SettingsError, StoreUnavailable
from core.settings import Settings
from core.storage import open_store
from core.tenants.api_keys import ApiKeys
from core.testing import MemoryStore
from hyperdreambooth.cli.program import main


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def outside(settings, job_service):
    """Another machine."""
    return TestClient(create_app(settings, job_service=job_service), "http://faces.example", client=("10.0.0.7", 5))


def test_a_stored_key_authenticates_its_tenant(outside, store):
    _, key = ApiKeys(store).create("acme", "ci")
    assert outside.get("/v1/usage", headers=bearer(key)).json()["tenant"] == "acme"


def test_a_revoked_key_opens_nothing(settings, job_service, store):
    ring = ApiKeys(store)
    known, key = ring.create("acme", "ci")
    ring.revoke(known.id)
    client = TestClient(create_app(settings, job_service=job_service), "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    for headers in (bearer(key), {}):
        refused = client.get("/v1/usage", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"


def test_wrong_keys_open_nothing(outside, store):
    known, key = ApiKeys(store).create("acme", "ci")
    for wrong in (key[:-1], key[:-1] + "x", f"hdb_{known.id}_{'0' * 64}", f"hdb_{'0' * 16}_{key[-64:]}", known.hash):
        assert outside.get("/v1/usage", headers=bearer(wrong)).status_code == 401
    assert outside.get("/v1/usage", headers={"authorization": f"Basic {key}"}).status_code == 401
    assert outside.get("/v1/usage", headers={"authorization": f"bearer  {key}"}).status_code == 200


def test_keys_of_the_environment_stay_the_local_tenants(settings, job_service, store):
    _, key = ApiKeys(store).create("acme", "ci")
    both = settings.model_copy(update={"api_keys": (SecretStr("one"),)})
    client = TestClient(create_app(both, job_service=job_service), client=("10.0.0.7", 5))
    assert client.get("/v1/usage", headers=bearer("one")).json()["tenant"] == "local"
    assert client.get("/v1/usage", headers=bearer(key)).json()["tenant"] == "acme"


def test_revoking_takes_effect_when_the_cache_has_expired():
    now = [0.0]
    ring = ApiKeys(MemoryStore())
    authenticator = auth.Authenticator(Settings(), ring, clock=lambda: now[0])
    known, key = ring.create("acme", "ci")
    assert anyio.run(authenticator.tenant_of, f"Bearer {key}") == "acme"
    ring.revoke(known.id)
    now[0] += auth.CACHE_SECONDS - 1
    assert anyio.run(authenticator.tenant_of, f"Bearer {key}") == "acme"
    now[0] += 1
    with pytest.raises(auth.Unauthorized):
        anyio.run(authenticator.tenant_of, f"Bearer {key}")


def test_guessing_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(auth, "_MAX_CACHED", 5)
    authenticator = auth.Authenticator(Settings(), ApiKeys(MemoryStore()))
    for number in range(9):
        with pytest.raises(auth.Unauthorized):
            anyio.run(authenticator.tenant_of, f"Bearer hdb_{number:016x}_{'0' * 64}")
    assert len(authenticator._cache) == 5


def test_a_store_that_does_not_answer_lets_no_one_in(settings, job_service, monkeypatch):
    def fail(*_, **__):
        raise StoreUnavailable

    app = create_app(settings, job_service=job_service)
    monkeypatch.setattr(job_service.archive.store, "list", fail)
    client = TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    assert client.get("/v1/models").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_stored_keys_let_the_server_listen(settings, job_service, store):
    outward = settings.model_copy(update={"api_host": "0.0.0.0"})
    with pytest.raises(SettingsError, match="keys create"):
        create_app(outward, job_service=job_service)
    ApiKeys(store).create("acme", "ci")
    create_app(outward, job_service=job_service)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HDB_DATA_DIR", str(tmp_path))

    def run(*argv):
        status = main(["keys", *argv])
        return (status, *capsys.readouterr())

    return run


def test_keys_are_made_listed_and_revoked_from_the_command_line(command, tmp_path):
    status, out, said = command("create", "--tenant", "acme", "--name", "ci")
    assert status == 0
    assert "cannot be read again" in said
    key = out.strip()
    ring = ApiKeys(open_store(Settings(data_dir=tmp_path)))
    (known,) = ring.all()
    assert known.tenant == "acme"
    _, listed, _ = command("list")
    assert known.id in listed
    assert key not in listed
    assert command("revoke", known.id)[0] == 0
    assert next(ring.all()).revoked_at
    assert command("list")[1].splitlines()[1].count(":") == 2


def test_mistakes_are_answered_with_a_sentence(command, monkeypatch):
    status, _, said = command("revoke", "nothing")
    assert (status, said) == (1, "hdb: There is no such key.\nThere is no key nothing.\n")
    status, _, said = command("create", "--tenant", "A/B", "--name", "x")
    assert status == 1
    assert "small letters" in said
    monkeypatch.setenv("HDB_STORE", "ftp://x")
    assert command("list")[0] == 1
