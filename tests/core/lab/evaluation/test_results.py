from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from core.lab.evaluation import results
from core.lab.evaluation.methods import METHODS

RESULT = {
    "setup": "Two people.",
    "command": "make figures",
    "columns": {"others": "other photos", "copy_paste": "copy-paste", "bytes": "bytes"},
    "digits": {"bytes": 0},
    "real_pairs": 0.5,
    "rows": {"ours": {"photo": [0.9, 0.01], "others": [0.5, 0.02], "bytes": [60692.0, None]}, "none": {}},
}


@pytest.fixture
def page(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "main.json").write_text(json.dumps(RESULT))
    page = tmp_path / "results.md"
    page.write_text("Before.\n\n<!-- table main -->\n<!-- end -->\n\nAfter.\n")
    return page


def test_the_page_keeps_its_text_and_has_its_tables_written(page):
    results.main(["--page", str(page)])
    assert page.read_text() == (
        "Before.\n\n<!-- table main -->\nTwo people.\n\n| | other photos | copy-paste | bytes |\n|---|---|---|---|\n"
        "| ours | 0.50 ± 0.02 | 0.57 | 60,692 |\n| none |  |  |  |\n\n`make figures`\n<!-- end -->\n\nAfter.\n"
    )


def test_a_page_that_is_out_of_date_fails_the_check_and_is_left_alone(page):
    before = page.read_text()
    with pytest.raises(SystemExit) as stopped:
        results.main(["--page", str(page), "--check"])
    assert stopped.value.code == 1
    assert page.read_text() == before
    results.main(["--page", str(page)])
    results.main(["--page", str(page), "--check"])


def test_copy_paste_is_one_for_the_photo_itself_and_zero_for_no_preference():
    assert results.copy_paste(1.0, 0.5, 0.5) == pytest.approx(1)
    assert results.copy_paste(0.5, 0.5, 0.6) == 0
    assert results.copy_paste(0.4, 0.5, 0.6) < 0


def test_an_unknown_field_of_a_file_is_refused(tmp_path):
    file = tmp_path / "main.json"
    file.write_text(json.dumps(RESULT | {"colums": {}}))
    with pytest.raises(ValidationError, match="colums"):
        results.load_result(file)


@pytest.mark.parametrize("file", sorted(results.PAGE.with_suffix("").glob("*.json")), ids=lambda file: file.stem)
def test_the_commands_of_the_page_name_methods_that_exist(file):
    command = results.load_result(file).command
    for option in command.split(" --")[1:]:
        name, *values = option.split()
        assert name != "methods" or set(values) <= {*METHODS, "all"}
