from __future__ import annotations

import pytest

from worker.overall_progress import OverallProgress

COSTS = {"hypernetwork": 1.0, "preview": 2.0, "finetune": 6.0, "likeness": 1.0}
WHOLE = [
    *[("hypernetwork", step, 1) for step in (0, 1)],
    *[("preview", step, 20) for step in range(1, 21)],
    *[("finetune", step, 30) for step in range(1, 11)],
    *[("preview", step, 20) for step in range(1, 21)],
    *[("finetune", step, 30) for step in range(11, 31)],
    *[("likeness", step, 20) for step in range(1, 21)],
]
RUNS = {
    "whole": WHOLE,
    "without a hypernetwork": [each for each in WHOLE if each[0] in ("finetune", "likeness")],
    "from weights, without a recogniser": [each for each in WHOLE if each[0] == "finetune"],
    "generate": [("generate", step, 20) for step in range(21)],
}


@pytest.mark.parametrize("run", RUNS)
def test_the_share_grows_from_nothing_to_the_end_over_all_stages(run):
    overall = OverallProgress(COSTS)
    shares = [overall.at(*each) for each in RUNS[run]]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1.0 if run != "from weights, without a recogniser" else 6 / 7)


def test_the_seconds_left_are_those_of_the_pace_so_far():
    now = 0.0
    overall = OverallProgress(COSTS, clock=lambda: now)
    assert overall.seconds_left() is None
    overall.at("hypernetwork", 0, 1)
    assert overall.seconds_left() is None
    now = 20.0
    overall.at("finetune", 15, 30)  # 6 of 10
    assert overall.seconds_left() == pytest.approx(13.3)
    overall.at("likeness", 20, 20)
    assert overall.seconds_left() == 0.0
