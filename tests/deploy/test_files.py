"""The deployment files agree with the code and with each other."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml
from redis.exceptions import NoPermissionError

from core.monitoring import ServiceCollector
from core.queue.connection import connect
from core.queue.local_redis import LocalRedis
from core.records import JobState
from core.services import open_services
from core.settings import Settings, load_settings
from tests.deploy.test_monitoring import metrics_told
from tests.worker.test_processes import Crew

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / "docker-compose.yml",
    ROOT / "Dockerfile.api",
    ROOT / "Dockerfile.worker",
    *sorted((ROOT / "deploy").glob("kubernetes*/**/*.yaml")),
]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
KUSTOMIZED = sorted(file.parent for file in (ROOT / "deploy").rglob("kustomization.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    known = {f"HDB_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bHDB_[A-Z0-9_]+", file.read_text()))
    assert named <= known


def test_every_image_is_named_with_its_digest() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    for file in (ROOT / "Dockerfile.api", ROOT / "Dockerfile.worker"):
        images += re.findall(r"^FROM (\S+)", file.read_text(), flags=re.MULTILINE)
    images += re.findall(r"image: (\S+:\S+)", (ROOT / "deploy" / "kubernetes" / "redis.yaml").read_text())
    assert len(images) >= 9
    assert [image for image in images if not re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_bounds(name: str) -> None:
    service = SERVICES[name]
    assert {"mem_limit", "pids_limit", "logging", "restart", "networks"} <= set(service)
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "build" in service:
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_networks_of_containers() -> None:
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    internal = {name for name, options in COMPOSE["networks"].items() if (options or {}).get("internal")}
    for name in ("worker", "worker-gpu", "redis", "store", "s3"):
        assert networks[name] <= internal
    assert {name for name in networks if networks[name] & networks["store"]} == {"store", "s3", "bucket"}
    assert not networks["proxy"] & (networks["redis"] | networks["s3"])
    assert [name for name in SERVICES if "HDB_API_KEYS" in SERVICES[name].get("environment", {})] == ["api"]
    address = SERVICES["proxy"]["networks"]["front"]["ipv4_address"]
    assert address in SERVICES["api"]["environment"]["HDB_TRUSTED_PROXIES"]


def test_no_probe_asks_what_a_worker_stands_on() -> None:
    """A worker that is restarted because Redis is away has to load its model again."""
    texts = [file.read_text() for file in FILES]
    assert not [text for text in texts if "inspect" in text]
    assert "HDB_HEARTBEAT_FILE" in (ROOT / "Dockerfile.worker").read_text()
    for name in ("worker", "dispatcher"):
        deployment = next(
            each
            for each in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / f"{name}.yaml").read_text())
            if each["kind"] == "Deployment"
        )
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["livenessProbe"]["exec"]["command"] == ["python", "-m", "core.heartbeat"]
        assert "readinessProbe" not in container


def test_scaling_asks_for_metrics_that_are_told() -> None:
    folder = ROOT / "deploy" / "kubernetes" / "monitoring"
    scaled = yaml.safe_load((folder / "scaling.yaml").read_text())["spec"]
    query = scaled["triggers"][0]["metadata"]["query"]
    promql_parser.parse(query)
    assert set(re.findall(r"hdb_\w+", query)) <= metrics_told()
    assert scaled["minReplicaCount"] >= 1


@pytest.mark.process
def test_the_user_of_redis_may_do_what_the_service_does(local_redis: LocalRedis, tmp_path: Path) -> None:
    rules = re.search(r"user hdb (.*)", COMPOSE["configs"]["redis-users"]["content"])
    assert rules
    in_kubernetes = (ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text()
    assert rules[1].partition(" ~")[2] in in_kubernetes
    admin = connect(Settings(redis_url=local_redis.url))
    crew = Crew(local_redis, tmp_path)
    admin.execute_command("ACL", "SETUSER", "hdb", "reset", *rules[1].replace("${REDIS_PASSWORD}", "secret").split())
    try:
        crew.options["redis_url"] = local_redis.url.replace("//", "//hdb:secret@")
        crew.services = open_services(load_settings(**crew.options))
        crew.jobs, crew.subjects = crew.services.jobs, crew.services.subjects
        with pytest.raises(NoPermissionError):
            crew.services.redis.flushall()
        crew.start_worker()
        assert crew.until_over(crew.personalize()).state is JobState.SUCCEEDED
        told = {family.name for family in ServiceCollector(crew.services).collect()}
        assert {"hdb_redis_memory_bytes", "hdb_maintenance_done_timestamp_seconds"} <= told
    finally:
        crew.end()
        admin.execute_command("ACL", "DELUSER", "hdb")
        admin.close()


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("folder", KUSTOMIZED, ids=lambda folder: folder.name)
def test_kustomize_makes_manifests_of_it(folder: Path) -> None:
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    assert all(manifest["kind"] for manifest in yaml.safe_load_all(made))


@pytest.mark.parametrize("folder", KUSTOMIZED, ids=lambda folder: folder.name)
def test_every_manifest_is_in_the_kustomization(folder: Path) -> None:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    listed = [*listed["resources"], *(patch["path"] for patch in listed.get("patches", ()))]
    listed = [name for name in listed if not name.startswith("..")]
    assert sorted(listed) == sorted(file.name for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")


@pytest.mark.process
def test_the_api_runs_without_torch() -> None:
    program = (
        "import sys, api.server.app, hyperdreambooth.client, core.hyperdreambooth.faces.detection;"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
