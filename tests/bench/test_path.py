from __future__ import annotations

from tests.bench.path import modules_passed

MOST = {"create a subject": 26, "generate": 21, "read a job": 11}


def test_requests_pass_through_few_modules() -> None:
    passed = modules_passed(engine="worker.testing:FakeEngine")
    assert {name: len(passed[name]) for name in MOST if len(passed[name]) > MOST[name]} == {}, passed
