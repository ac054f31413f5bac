"""The command itself, on a tiny random bundle and drawn pictures, without models that would have to be downloaded."""

import io
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation import __main__ as program
from core.lab.evaluation import setup
from core.lab.evaluation.__main__ import main
from core.lab.evaluation.methods import METHODS, Method
from core.lab.evaluation.study import Study
from core.lab.testing import random_bundle
from core.lab.training.export import export_bundle


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("evaluation")
    export_bundle(random_bundle(), folder / "bundle")
    config = ClassifierConfig(("photo", "cartoon"), ("smiling",), (8, 8), 0.875, {"smiling": 0.75})
    PictureClassifier(config).save(folder / "bundle")
    rng, pictures = np.random.default_rng(0), []
    for _ in range(6):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "WEBP")
        pictures.append(stream.getvalue())
    table = pa.table({"image": pictures, "identity": list("aabbcc"), "attributes": [["man"]] * 6})
    pq.write_table(table, folder / "faces.parquet")
    nowhere = str(folder / "nowhere")
    return [
        *("--bundle", str(folder / "bundle"), "--faces", str(folder / "faces.parquet")),
        *("--output", str(folder / "out"), "--dino", nowhere, "--clip", nowhere, "--people", "2", "--pictures", "2"),
    ]


def test_one_command_writes_the_tables_and_says_what_it_left_out(arguments):
    main([*arguments, "--vary", "finetune.rank=2,3", "--degrade", "dark"])
    out = arguments[arguments.index("--output") + 1]
    report = json.loads((Path(out) / "tables.json").read_text())
    assert {"hypernetwork only", "finetune.rank = 3", "photo: dark"} <= set(report["rows"])
    assert {"DINO", "CLIP", "face recognition"} <= set(report["left_out"])
    row = report["rows"]["HyperDreamBooth, as the bundle has it"]
    assert {"style_accuracy", "attribute_accuracy", "seconds", "bytes"} <= set(row)
    assert row["style_accuracy/cartoon"] == row["style_accuracy"], "there is no other style"
    assert (Path(out) / "styles.md").read_text().splitlines()[2].startswith("| cartoon | ")
    said, _, _, _, *lines = (Path(out) / "differences.md").read_text().splitlines()
    assert said.startswith("What each row has more than 'HyperDreamBooth, as the bundle has it'")
    assert [line.split(" | ")[0] for line in lines][-3:] == [
        "| finetune.rank = 2",
        "| finetune.rank = 3",
        "| photo: dark",
    ]
    assert report["classifier"] == {"styles": 0.875, "attributes": {"smiling": 0.75}}
    assert "right on 87.5% of styles and 75.0% to 75.0% of each attribute" in (Path(out) / "tables.md").read_text()


def test_learning_rates_are_chosen_by_a_sweep_that_is_printed(arguments, tmp_path, mean_colour, monkeypatch, capsys):
    sweep = [*arguments, "--output", str(tmp_path), "--methods", "full-lora", "--sweep", "1", "--plain", "--group", "1"]
    with pytest.raises(SystemExit):
        main(sweep)
    assert "metric of likeness" in capsys.readouterr().err
    monkeypatch.setattr(setup, "OnnxRecogniser", lambda _: mean_colour)
    measured = ["--recogniser", arguments[1 + arguments.index("--faces")], "--accept", "0.5"]
    main([*sweep, *measured, "--output", str(tmp_path / "measured")])
    assert "Accepted: a cosine above 0.5 with" in (tmp_path / "measured" / "tables.md").read_text()
    assert '"accepts at": "0.5"' in (tmp_path / "measured" / "settings.json").read_text()
    tried = (tmp_path / "measured" / "sweep" / "full-lora.md").read_text().splitlines()[2:]
    best = max(tried, key=lambda line: float(line.split("|")[2]))
    (title,) = [row for row in json.loads((tmp_path / "measured" / "tables.json").read_text())["rows"] if "rate" in row]
    assert best.startswith(f"| {title} |")
    files = (tmp_path / "measured" / "records").glob("full-lora@*.jsonl")
    swept = [len(file.read_text().splitlines()) for file in files]
    assert sorted(swept) == [1, 1, 2], "the person of the sweep is not repeated"


def test_a_rate_that_loses_the_styles_is_not_chosen(tmp_path):
    tried = {1e-4: (0.59, 1.0), 3e-4: (0.73, 1.0), 1e-3: (0.76, 0.25)}

    def run(_method: Method, rate: float) -> list[dict[str, float | str]]:
        return [{"identity": "ada", "photo": tried[rate][0], "style_accuracy": tried[rate][1]}]

    study = create_autospec(Study, instance=True)
    study.folder, study.measured_by, study.run = tmp_path, {"recogniser": ""}, run
    assert program._best_rate(study, replace(METHODS["dreambooth-40"], rates=tuple(tried))) == 3e-4


@pytest.mark.parametrize(("group", "said"), [("1", True), ("2", False)])
def test_times_are_said_where_everybody_was_alone(arguments, tmp_path, group, said):
    main([*arguments, "--output", str(tmp_path), "--methods", "hyperdreambooth", "--plain", "--group", group])
    assert ("seconds, times | " in (tmp_path / "tables.md").read_text()) == said


def test_subjects_that_are_not_faces_come_from_a_folder(arguments, tmp_path, capsys):
    for name, size in (("backpack/1.png", (40, 30)), ("backpack/2.jpg", (30, 40)), ("clock/1.png", (20, 20))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, "red").save(tmp_path / name)
    things = [
        "--faces",
        str(tmp_path),
        "--noun",
        "toy",
        "--methods",
        "hyperdreambooth",
        "--output",
        str(tmp_path / "out"),
    ]
    main([*arguments, *things])
    report = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert report["people"] == 1, "one picture leaves none to hold against"
    assert "face" in report["left_out"]["style and attribute accuracy"]
    assert not (tmp_path / "out" / "styles.md").exists(), "there is no classifier of styles"
    assert "a [V] toy" in (tmp_path / "out" / "settings.json").read_text()
    (tmp_path / "clock" / "2.png").write_bytes(b"not a picture")
    for wrong, said in ((tmp_path, "2.png"), (tmp_path / "nowhere", "subfolder"), (tmp_path / "out", "subfolder")):
        with pytest.raises(SystemExit):
            main([*arguments, *things, "--faces", str(wrong)])
        assert said in capsys.readouterr().err


def test_what_the_prediction_saves_of_the_loss_needs_no_other_row(arguments, tmp_path):
    main([*arguments, "--output", str(tmp_path), "--gain", "--methods"])
    header, _, line = (tmp_path / "gains.md").read_text().splitlines()
    assert header == "| timestep | 980 | 800 | 600 | 400 | 200 |"
    assert line.count("±") == 5
    assert json.loads((tmp_path / "tables.json").read_text())["rows"] == {}


def test_several_photos_of_those_who_have_one_more(arguments, tmp_path, capsys):
    faces = Path(arguments[arguments.index("--faces") + 1])
    table = pq.read_table(faces)
    several = tmp_path / "faces.parquet"
    pq.write_table(table.set_column(1, "identity", [list("aaabbc")]), several)
    quick = ["--output", str(tmp_path / "out"), "--methods", "hyperdreambooth", "--plain", "--photos", "2"]
    main([*arguments, *quick, "--faces", str(several)])
    assert json.loads((tmp_path / "out" / "tables.json").read_text())["people"] == 1, (
        "the others have two photos at most"
    )
    with pytest.raises(SystemExit):
        main([*arguments, *quick])
    assert "more than 2 photos" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--photos", "0"])
    assert "1 or more" in capsys.readouterr().err


def test_another_setting_wants_another_folder(arguments, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--seed", "5"])
    assert "another --output" in capsys.readouterr().err
