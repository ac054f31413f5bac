"""The deployment files agree with the code and with each other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / "docker-compose.yml",
    ROOT / "Dockerfile.api",
    ROOT / "Dockerfile.worker",
    *sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    known = {f"HDB_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bHDB_[A-Z0-9_]+", file.read_text()))
    assert named <= known


def test_every_image_has_a_version() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    images = [service["image"] for service in compose["services"].values() if "image" in service]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile.api").read_text(), flags=re.MULTILINE)
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile.worker").read_text(), flags=re.MULTILINE)
    assert images
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


def test_every_manifest_is_in_the_kustomization() -> None:
    folder = ROOT / "deploy" / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(file.name for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")


@pytest.mark.process
def test_the_api_runs_without_torch() -> None:
    program = (
        "import sys, api.server.app, hyperdreambooth.client, core.hyperdreambooth.faces.detection;"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
