import fcntl
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import SettingsError
from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation.methods import METHODS, Method
from core.lab.evaluation.metrics import Made, Metrics, diversity, measure
from core.lab.evaluation.report import differences, grid, interval, summarise, table
from core.lab.evaluation.study import Study, ceiling
from core.lab.testing import random_bundle


@pytest.fixture
def study(tmp_path, people, mean_colour) -> Study:
    config = ClassifierConfig(("photo", "pencil sketch"), ("smiling", "man"), (8, 8))
    metrics = Metrics(recogniser=mean_colour, classifier=PictureClassifier(config).eval())
    return Study(
        random_bundle(), tmp_path / "out", people(3), people(3), people(4), metrics,
        pictures=2, group=2, styles=("pencil sketch",), attributes=("smiling",),
    )  # fmt: skip


def test_every_person_gets_a_record_with_every_column_that_has_a_metric(study):
    study.settle()
    records = study.run(METHODS["hyperdreambooth"], None)
    assert [record["identity"] for record in records] == ["0", "1", "2"]
    columns = {"photo", "others", "strangers", "accepted", "styled", "filtered", "style_accuracy", "attribute_accuracy"}
    assert columns | {"diversity", "seconds", "bytes"} <= set(records[0])
    for column in ("styled", "filtered", "style_accuracy"):
        assert records[0][f"{column}/pencil sketch"] == records[0][column]
    grid(study.folder, ["hyperdreambooth"])
    with Image.open(study.folder / "hyperdreambooth.png") as rows:
        assert rows.size == (4 * 16, 3 * 16)


def test_an_interrupted_study_goes_on_and_repeats_no_person(study):
    asked: list[str] = []

    def run(bundle, chosen, seed, rate):
        asked.extend(subject.identity for subject in chosen)
        if len(asked) > 2:
            raise KeyboardInterrupt
        return METHODS["not-personalized"].run(bundle, chosen, seed, rate)

    method = Method("tried", "tried", run)
    with pytest.raises(KeyboardInterrupt):
        study.run(method, None)
    asked.clear()
    assert len(study.run(method, None)) == 3
    assert asked == ["2"]


def test_a_group_that_another_process_is_at_is_left_to_it_and_waited_for(study):
    lock = study.folder / "records" / "shared" / "000.lock"
    lock.parent.mkdir(parents=True)
    asked: list[str] = []
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def run(bundle, chosen, seed, rate):
            asked.extend(subject.identity for subject in chosen)
            fcntl.flock(other, fcntl.LOCK_UN)
            return METHODS["not-personalized"].run(bundle, chosen, seed, rate)

        records = study.run(Method("shared", "shared", run), None)
    assert asked == ["2", "0", "1"]
    assert [record["identity"] for record in records] == ["0", "1", "2"]


def test_a_folder_keeps_to_its_settings(study):
    study.settle()
    study.settle()
    trained_on = random_bundle()
    with torch.no_grad():
        next(trained_on.hypernetwork.parameters()).add_(1)
    others = {
        "seed": 1,
        "bundle": trained_on,
        "measured_by": {"recogniser": "another"},
        "strangers": study.strangers[1:],
    }
    for name, value in others.items():
        with pytest.raises(SettingsError, match="another --output"):
            replace(study, **{name: value}).settle()


def test_a_person_s_own_photo_has_cosine_one(people, mean_colour):
    subject, strangers = people(2)[0], mean_colour(people(2)[1].photo[None])
    numbers = measure(
        Metrics(recogniser=mean_colour), subject, subject.photo, list(strangers), Made(subject.photo[None], {}, {})
    )
    assert numbers["photo"] == pytest.approx(1.0)
    assert numbers["accepted"] == 1.0
    assert "style_accuracy" not in numbers


def test_the_ceiling_is_what_the_autoencoder_keeps(study):
    assert all(-1 <= record["photo"] <= 1.0001 for record in ceiling(study))


def test_diversity_is_the_difference_between_pictures():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 10, np.uint8)
    assert diversity(np.stack([black, black])) == 0
    assert diversity(np.stack([black, grey])) == pytest.approx(10)
    assert np.isnan(diversity(black[None]))


def test_a_table_has_the_columns_that_were_measured_and_the_reasons_for_the_others():
    records = [{"identity": "a", "photo": 0.5, "bytes": 1000}, {"identity": "b", "photo": 0.7, "bytes": 1000}]
    text = table({"ours": summarise(records)}, {"DINO": "not here"})
    assert "| ours | 0.600 ± 1.271 | 1,000 |" in text
    assert "Left out: DINO: not here." in text
    assert "CLIP" not in text
    assert interval(np.array([1.0])) == (1.0, None)
    assert "| ours | 0.500 | 1,000 |" in table({"ours": summarise(records[:1])}, {})
    json.dumps(summarise(records))


def test_rows_are_compared_person_by_person():
    ours = [{"identity": str(n), "photo": 0.1 * n, "seconds": 1.0} for n in range(4)]
    theirs = [{**record, "photo": record["photo"] + 0.05} for record in ours]
    found = differences({"ours": ours, "theirs": theirs, "nothing": [{"identity": "0"}] * 4}, "ours")
    assert found == {"theirs": {"photo": (pytest.approx(0.05), pytest.approx(0.0))}}


@pytest.mark.parametrize(("people", "quantile"), [(2, 12.706), (4, 3.182), (13, 2.179), (31, 2.042), (100, 1.984)])
def test_intervals_are_those_of_student_s_t(people, quantile):
    values = np.arange(people, dtype=float)
    assert interval(values)[1] == pytest.approx(quantile * np.std(values, ddof=1) / people**0.5, rel=2e-3)
