"""The reader, against files that were made to break it."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from core.errors import WeightsFormat
from core.hyperdreambooth.formats import lidb_file
from core.hyperdreambooth.formats.lidb_file import LidbFile, WeightsMetadata, read, split

METADATA = WeightsMetadata("b", "f", "t", 1, "h", 0, "p", 2, "lidb", "int8", "face", "sks", "a sks face", 3)
BODY = bytes(range(10)) + np.ones(4, dtype="<f2").tobytes()


def file(body=BODY, **changes):
    header = {
        "__metadata__": {"lidb": json.dumps(METADATA.__dict__)},
        "values": {"dtype": "I8", "shape": [10], "data_offsets": [0, 10]},
        "scales": {"dtype": "F16", "shape": [4], "data_offsets": [10, 18]},
    }
    for name, change in changes.items():
        header[name] = {**header[name], **change} if name in header and isinstance(change, dict) else change
    text = json.dumps({name: entry for name, entry in header.items() if entry is not None}).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_a_good_file_opens():
    opened = read(file())
    assert opened.metadata == METADATA
    assert (opened.values.tolist(), opened.scales.tolist()) == (list(range(10)), [1.0] * 4)
    ((left, right),) = split(opened, [(3, 2)])
    assert (left.tolist(), right.tolist()) == ([[0, 1, 2], [3, 4, 5]], [[6, 7], [8, 9]])


@pytest.mark.parametrize(
    "changes",
    [
        {"values": None},
        {"values": []},
        {"values": "I8"},
        {"more": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}},
        {"values": {"dtype": "F16"}},
        {"values": {"dtype": "I9"}},
        {"values": {"dtype": ["I8"]}},
        {"values": {"shape": [5, 2]}},
        {"values": {"shape": [11]}},
        {"values": {"shape": [-10]}},
        {"values": {"shape": [10**30]}},
        {"values": {"shape": "10"}},
        {"values": {"shape": None}},
        {"values": {"data_offsets": [0, 10**12]}},
        {"values": {"data_offsets": [-10, 0]}},
        {"values": {"data_offsets": [10, 0]}},
        {"values": {"data_offsets": [0]}},
        {"values": {"data_offsets": [None, None]}},
        {"values": {"data_offsets": [1e400, 10]}},
        {"values": {"data_offsets": [0.5, 10]}},
        {"values": {"data_offsets": [False, 10]}},
        {"values": {"shape": [1e400]}},
        {"scales": {"data_offsets": [11, 19]}},
        {"scales": {"dtype": "F32"}},
        {"body": BODY[:-1]},
        {"body": BODY + b"behind it"},
        {"body": b""},
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused(changes):
    with pytest.raises(WeightsFormat):
        read(file(**changes))


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_that_are_none_are_refused(value):
    scales = np.full(4, float(value), dtype="<f2").tobytes()
    with pytest.raises(WeightsFormat, match="finite"):
        read(file(body=BODY[:10] + scales))


def test_whatever_happens_to_a_file_it_opens_or_says_why():
    rng = random.Random(0)
    good = file()
    for _ in range(3000):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        try:
            opened = read(bytes(broken))
        except WeightsFormat:
            continue
        assert isinstance(opened, LidbFile)


def test_a_layer_too_many_is_refused():
    opened = read(file())
    for shapes in ([(3, 2), (1, 1)], [(3, 3)], []):
        with pytest.raises(WeightsFormat, match="numbers"):
            split(opened, shapes)
    with pytest.raises(WeightsFormat, match="finite"):
        split(replace(opened, scales=opened.scales * np.float16("inf")), [(3, 2)])


def test_a_file_over_the_limit_is_not_read(monkeypatch):
    monkeypatch.setattr(lidb_file, "LARGEST", 10)
    with pytest.raises(WeightsFormat, match="at most"):
        read(file())
