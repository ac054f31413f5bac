"""What lands in the two images: the files that their Dockerfiles copy, of those that .dockerignore lets through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["api", "core", "deploy", "docs", "tests", "worker"]
IGNORED = {"api": "Dockerfile.api.dockerignore", "worker": ".dockerignore"}


def context(image: str) -> list[str]:
    """The repository's files that the build of an image gets to see."""
    lines = (ROOT / IGNORED[image]).read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    found = [*ROOT.glob("*"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*"))]
    names = [str(file.relative_to(ROOT)) for file in found if file.is_file()]
    return [name for name in names if not is_ignored(name, rules)]


def is_ignored(name: str, rules: list[str]) -> bool:
    """As Docker decides: the last rule that matches the file or a folder above it."""
    ignored = False
    for rule in rules:
        pattern = re.escape(rule.lstrip("!").rstrip("/"))
        pattern = pattern.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\[co\]", "[co]")
        if re.fullmatch(f"{pattern}(?:/.*)?", name):
            ignored = not rule.startswith("!")
    return ignored


def copied(image: str) -> dict[str, str]:
    """The files under /app in the image, and where in the repository they come from."""
    final_stage = (ROOT / f"Dockerfile.{image}").read_text().rpartition("\nFROM ")[2]
    found = {}
    for *sources, target in [line.split()[1:] for line in final_stage.splitlines() if line.startswith("COPY ")]:
        for source in sources:
            for name in context(image):
                if name == source:
                    found[f"{target}{Path(name).name}" if target.endswith("/") else target] = name
                elif name.startswith(f"{source}/"):
                    found[target.rstrip("/") + name.removeprefix(source)] = name
    return found


@pytest.fixture(params=["api", "worker"])
def image(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_library_reports_anything(image: str) -> None:
    final_stage = (ROOT / f"Dockerfile.{image}").read_text().rpartition("\nFROM ")[2]
    for variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        assert re.search(rf"^ENV .*\b{variable}=1\b", final_stage, flags=re.MULTILINE)


def test_neither_has_the_laboratory_or_the_client_twice(image: str) -> None:
    files = copied(image)
    assert "core/settings.py" in files
    assert not [name for name in files if name.startswith(("core/lab", "api/client", "tests", "docs", "deploy"))]


def test_the_weights_of_the_model_are_in_the_workers_only() -> None:
    weights = {image: [name for name in copied(image) if name.endswith(".safetensors")] for image in IGNORED}
    checks_photos = {f"core/bundles/{part}/model.safetensors" for part in ("dlib-face-resnet", "face-covers")}
    assert set(weights["api"]) == checks_photos
    assert "core/bundles/faces-128/unet/diffusion_pytorch_model.safetensors" in weights["worker"]
    assert "core/bundles/faces-128/bundle.json" in copied("api")


def test_each_has_its_own_program_only() -> None:
    assert {name.partition("/")[0] for name in copied("api")} == {"api", "core"}
    assert {name.partition("/")[0] for name in copied("worker")} == {"core", "worker"}


def test_what_the_builds_install_is_there(image: str) -> None:
    files = context(image)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "api/client/hyperdreambooth/py.typed"):
        assert name in files
    assert (
        f"'.[{'server,heic,otel' if image == 'api' else 'worker,otel'}]'" in (ROOT / f"Dockerfile.{image}").read_text()
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("api", "import api.__main__, api.server.app, api.server.keys, core.webhooks.__main__"),
        ("worker", "import worker.__main__, worker.app, worker.child, worker.diffusion_engine"),
    ],
)
def test_its_programs_can_be_imported_from_its_files_alone(image: str, program: str, tmp_path: Path) -> None:
    for name, source in copied(image).items():
        if name.endswith((".py", ".lua")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, tmp_path / name)
    (tmp_path / "hyperdreambooth").symlink_to(ROOT / "api" / "client" / "hyperdreambooth")
    # The checkout is on the path of an editable installation: it must not fill a gap.
    program = f"import sys; sys.path = [p for p in sys.path if p not in {[str(ROOT), *_editable()]!r}]; {program}"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environ, check=True)


def _editable() -> list[str]:
    """Folders on the path that are a checkout of this repository."""
    return [place for place in sys.path if (Path(place) / "Dockerfile.api").is_file() or place.endswith("api/client")]
