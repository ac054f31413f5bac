"""The demo, over HTTP against real processes, with the fake engine in the worker."""

import json
from pathlib import Path

import pytest
from PIL import Image

from deploy.demo import NAME, PICTURES_PER_PROMPT, PROMPTS, demonstrate, main
from deploy.first_steps import DEMO_FACE
from deploy.local import LocalService
from hyperdreambooth.client import Client, Problem
from tests.harness import FAKE


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    file = tmp_path / "landscape.png"
    Image.linear_gradient("L").convert("RGB").save(file)
    return file


def test_there_are_at_least_six_prompts_of_the_person() -> None:
    assert len(set(PROMPTS)) >= 6
    assert all("[V]" in prompt for prompt in PROMPTS)


@pytest.mark.process
def test_the_demo_leaves_sheet_report_pictures_weights_and_its_person_in_the_studio(
    service: LocalService, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        before = [subject.id for subject in client.subjects()]
        demonstrate(client, DEMO_FACE, tmp_path, prompts=PROMPTS[:1])  # an earlier one
        (tmp_path / "99-1.png").write_bytes(b"an earlier demo's")
        (tmp_path / "notes.txt").write_text("the user's own")
        report = demonstrate(client, DEMO_FACE, tmp_path, prompts=PROMPTS[:2])
        person, *others = client.subjects()
        assert (person.name, [subject.id for subject in others]) == (NAME, before)
        assert len(list(client.pictures(subject=person))) == 2 * PICTURES_PER_PROMPT
        client.delete_subject(person)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["weights_bytes"] == report.weights_bytes == (tmp_path / "face.lidb").stat().st_size
    assert written["likeness"] == 0.5
    assert all(0 < each <= written["personalize_seconds"] for each in written["preview_seconds"])
    assert written["preview_seconds"]
    assert written["personalize_seconds"] < written["total_seconds"]
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.width == preview.height
    assert [image["prompt"] for image in written["images"]] == [
        p for p in PROMPTS[:2] for _ in range(PICTURES_PER_PROMPT)
    ]
    assert all(Path(image["path"]).is_file() for image in written["images"])
    assert not (tmp_path / "99-1.png").exists()
    assert (tmp_path / "notes.txt").exists()
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 400


@pytest.mark.process
def test_a_photo_without_a_face_is_refused_and_leaves_nothing(
    service: LocalService, landscape: Path, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        before = [subject.id for subject in client.subjects()]
        with pytest.raises(Problem) as refused:
            demonstrate(client, landscape, tmp_path)
        assert refused.value.code == "no-face"
        assert [subject.id for subject in client.subjects()] == before


@pytest.mark.process
def test_the_command_tells_title_and_detail_of_a_refusal(
    landscape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HDB_ENGINE", FAKE["HDB_ENGINE"])
    status = main(["--face", str(landscape), "--folder", str(tmp_path / "demo"), "--data", str(tmp_path / "data")])
    printed = capsys.readouterr().err
    assert status == 1
    assert printed.startswith("No face was found in the photo.\n")
    assert len(printed.splitlines()) == 2
    assert "Traceback" not in printed


def test_the_command_says_when_there_is_no_such_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--face", str(tmp_path / "none.jpg"), "--folder", str(tmp_path)]) == 1
    assert "There is no file" in capsys.readouterr().err
