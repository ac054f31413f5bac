"""The command itself, on a tiny random bundle and drawn pictures: tables, sheets, and going on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation.__main__ import main
from core.lab.evaluation.behavior import command
from core.lab.evaluation.behavior.rows import ROWS
from core.lab.testing import random_bundle
from core.lab.training.export import export_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("behavior")
    export_bundle(random_bundle(), folder / "bundle")
    config = ClassifierConfig(("photo", "cartoon"), ("smiling", "beard"), (8, 8), 0.875, {"beard": 0.75})
    PictureClassifier(config).save(folder / "bundle")
    rng, pictures = np.random.default_rng(0), []
    for _ in range(6):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "WEBP")
        pictures.append(stream.getvalue())
    identities = ["omi-1", "omi-1", "omi-2", "omi-2", "omi-3", "omi-3"]
    table = pa.table({"image": pictures, "identity": identities, "attributes": [["man"]] * 6})
    pq.write_table(table, folder / "faces.parquet")
    return folder


@pytest.fixture
def arguments(folder, tmp_path, mean_colour, monkeypatch) -> list[str]:
    monkeypatch.setattr(
        command, "onnx_recogniser", lambda name, _file, accept: command.Recogniser(name, mean_colour, accept)
    )
    faces = str(folder / "faces.parquet")
    return [
        *("behavior", "--bundle", str(folder / "bundle"), "--faces", faces, "--recogniser", faces, "--no-dlib"),
        *("--people", "2", "--pictures", "2", "--words", "beard", "looking left", "bald", "--sampling-steps", "2"),
        *("--sheet", "1", "--output", str(tmp_path / "out")),
    ]


def test_one_command_writes_every_row_and_sheet_and_goes_on(arguments, tmp_path, folder, monkeypatch):
    arguments += ["--vary", "finetune.steps=2"]
    main([*arguments, "--card", str(folder / "faces.parquet"), "--card-people", "2"])
    out = tmp_path / "out"
    report = json.loads((out / "tables.json").read_text())
    assert len(report["rows"]) == 7
    assert report["checked_by"] == {"beard": "classifier", "looking left": "poses", "bald": None}
    assert "word 'bald'" in report["left_out"]
    row = report["rows"]["finetune.steps = 2"]
    assert {"sim_gt/A", "copy_paste/A", "structure_share", "effect", "pose_loss", "style_share", "bytes"} <= set(row)
    assert '"steps": 2' in json.loads((out / "settings.json").read_text())["config"]
    for name, people in (("sheet-personalized", 1), ("card", 2)):
        with Image.open(out / f"{name}.png") as sheet:
            assert sheet.height == people * 128 + 16
    before = {file: file.read_bytes() for file in (out / "records").glob("*.jsonl")}
    monkeypatch.setattr(command, "measure", None)
    main(arguments)
    assert before == {file: file.read_bytes() for file in (out / "records").glob("*.jsonl")}


def test_a_row_the_bundle_has_not_is_left_out(arguments, tmp_path):
    main([*arguments, "--rows", "copier", "from-prediction"])
    report = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert list(report["rows"]) == ["the photo through the autoencoder"]
    assert any("from the hypernetwork's prediction" in row for row in report["left_out"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--rows", "unknown"], "there is no row 'unknown'"),
        (["--vary", "finetune.rank"], "KEY=VALUE"),
        (["--seed", "5"], "another --output"),
        (["--people", "0"], "two photos"),
    ],
)
def test_what_is_wrong_is_said(arguments, changed, said, capsys):
    if changed[0] == "--seed":
        main([*arguments, "--rows", "filter"])
    with pytest.raises(SystemExit):
        main([*arguments, *changed])
    assert said in capsys.readouterr().err


def test_something_has_to_recognise_people(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*arguments[:5], "--no-dlib", "--output", str(tmp_path)])
    assert "--recogniser" in capsys.readouterr().err


def test_every_row_has_a_title_of_its_own():
    assert len({row.title for row in ROWS.values()}) == len(ROWS)
    assert all(row.name == name for name, row in ROWS.items())
