"""Streaming: what is in a slice does not depend on who reads it, nor on where reading began."""

import io
import json
import tarfile
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import BundleError
from core.lab.training.rows import Mix
from core.lab.training.shards import identity_labels, open_shards, pictures_at
from core.lab.training.stream import Plan, Stream


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def who(number: int) -> str:
    return "abcdefghij"[number // 4]


@pytest.fixture
def parquet(tmp_path):
    files = []
    for name, numbers in (("one", range(20)), ("two", range(20, 38))):
        table = pa.table({"image": [encoded(n) for n in numbers], "identity": [who(n) for n in numbers]})
        files.append(tmp_path / f"{name}.parquet")
        pq.write_table(table, files[-1], row_group_size=7)
    return files


@pytest.fixture
def tar(tmp_path):
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        for number in range(12):
            about = json.dumps({"identity": who(number), "attributes": ["smiling"]}).encode()
            for ending, data in (("png", encoded(number)), ("json", about)):
                member = tarfile.TarInfo(f"faces/{number:05d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return tmp_path / "faces.tar"


def plan(**changes) -> Plan:
    mix = Mix(photo=1.0, empty=0.2, personal=1.0, other_photo=0.5)
    values = {"seed": 3, "slices": 4, "rows": 3, "buffer": 5, "mix": mix, "styles": (), "resolution": 16}
    return Plan(**{**values, "identifier": "sks", "class_noun": "face", "labels": {}, **changes})


def steps(shards, *, count, step=0, processes=1, readers=0):
    """The slices of some steps as all processes together see them: numbers shown, numbers seen, captions."""
    each = [Stream(shards, plan(), step=step, process=p, processes=processes).load(readers) for p in range(processes)]
    mine = 4 // processes
    found = {}
    for process, slices in enumerate(each):
        for turn, part in enumerate(islice(slices, count * mine)):
            where = step + turn // mine, process + processes * (turn % mine)
            found[where] = (part.pictures[:, 0, 0, 0].tolist(), part.seen.tolist(), part.texts)
    return found


def test_one_two_and_four_processes_see_the_same(parquet):
    shards = open_shards(parquet)
    alone = steps(shards, count=6)
    assert steps(shards, count=6, processes=2) == alone
    assert steps(shards, count=6, processes=4) == alone


def test_faces_of_nobody_are_as_likely_as_the_recipe_says_and_are_known_to_nobody(parquet):
    shards = open_shards(parquet)
    labels = identity_labels(shards)
    slices = list(islice(iter(Stream(shards, plan(warped=2, labels=labels, rows=50), step=0)), 8))
    nobody = np.concatenate([part.seen == -1 for part in slices])
    assert 0.58 < nobody.mean() < 0.75
    assert all((part.labels[part.seen == -1] == -1).all() and (part.labels >= -1).all() for part in slices)
    assert all((part.pictures[part.seen == -1] == part.faces[part.seen == -1]).all() for part in slices)
    again = next(iter(Stream(shards, plan(warped=2, labels=labels, rows=50), step=0)))
    assert (again.pictures == slices[0].pictures).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_readers_change_nothing(parquet):
    shards = open_shards(parquet)
    assert steps(shards, count=4, readers=2) == steps(shards, count=4)


def test_a_stream_begins_anywhere(parquet):
    shards = open_shards(parquet)
    whole, late = steps(shards, count=8), steps(shards, count=3, step=5)
    assert late == {where: part for where, part in whole.items() if where[0] >= 5}


def test_an_epoch_shows_every_picture_once_and_the_next_in_another_order(parquet):
    shards = open_shards(parquet)
    shown = [n for part in steps(shards, count=3).values() for n in part[0]]
    assert len(set(shown)) == 36, "38 pictures: two are left over"
    later = [n for part in steps(shards, count=3, step=3).values() for n in part[0]]
    assert sorted(shown) != shown
    assert later != shown


def test_another_photo_is_of_the_same_person(parquet):
    parts = steps(open_shards(parquet), count=6).values()
    pairs = [pair for shown, seen, _ in parts for pair in zip(shown, seen, strict=True)]
    assert all(who(one) == who(other) for one, other in pairs)
    assert any(one != other for one, other in pairs)


def test_tar_files_as_webdataset_has_them(tar, parquet):
    shards = open_shards([tar, *parquet])
    photos = pictures_at(shards, [1, 11, 12, 49])
    assert [photo.number for photo in photos] == [1, 11, 12, 49]
    assert [photo.image for photo in photos] == [encoded(n) for n in (1, 11, 0, 37)]
    assert photos[0].attributes == ("smiling",)
    assert identity_labels(open_shards([tar])) == {"a": 0, "b": 1, "c": 2}


def test_pictures_without_identities_are_all_of_somebody_else(tmp_path):
    file = tmp_path / "hub.parquet"
    pq.write_table(pa.table({"image": [{"bytes": encoded(n), "path": None} for n in range(3)]}), file)
    shards = open_shards([file])
    assert len({photo.identity for photo in pictures_at(shards, [0, 1, 2])}) == 3
    assert identity_labels(shards) == {}


def test_what_cannot_work_is_said(parquet, tmp_path):
    shards = open_shards(parquet)
    with pytest.raises(BundleError, match="3 processes cannot share 4 slices"):
        Stream(shards, plan(), step=0, processes=3)
    with pytest.raises(BundleError, match="too few"):
        Stream(shards, plan(slices=100), step=0)
    with pytest.raises(BundleError, match="no file"):
        open_shards([])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(BundleError, match=r"broken\.parquet cannot be read"):
        open_shards([tmp_path / "broken.parquet"])


def test_a_row_is_its_own_whatever_the_others_are(parquet):
    first = next(Stream(open_shards(parquet), plan(), step=0).load(0))
    assert first.pictures.dtype == np.uint8
    assert first.pictures.shape == (3, 16, 16, 3)
    assert first.labels.tolist() == [-1, -1, -1]
