import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save

from core.errors import WeightsFormat, WeightsMismatch
from core.hyperdreambooth.formats.lidb_weights import describe, from_bytes, merged_factors, to_bytes, unpack
from core.hyperdreambooth.model.lidb import Factors
from core.hyperdreambooth.model.target import Target
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle()


def someone(bundle, rank=3, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    lidb = bundle.config.lidb
    shapes = {target.name: target.capped(lidb.a, lidb.b) for target in bundle.targets}
    return {
        name: Factors(
            torch.randn(a, rank, generator=generator) * scale, torch.randn(rank, b, generator=generator) * scale
        )
        for name, (a, b) in shapes.items()
    }


def packed(bundle, **options):
    settings = {"class_noun": "face", "kept_step": 7, **options}
    return describe(bundle, someone(bundle), **settings)


def test_a_file_opens_with_what_was_put_in(bundle):
    data = to_bytes(packed(bundle, precision="fp32"))
    opened = from_bytes(data)
    assert opened.metadata.kept_step == 7
    assert opened.metadata.prompt == "a sks face"
    for name, factors in unpack(opened, bundle).items():
        assert torch.equal(factors.left, someone(bundle)[name].left)
        assert torch.equal(factors.right, someone(bundle)[name].right)


def test_the_same_weights_are_the_same_bytes(bundle):
    assert to_bytes(packed(bundle)) == to_bytes(packed(bundle))


def test_int8_changes_a_change_by_less_than_a_hundredth(bundle):
    person, opened = someone(bundle), unpack(packed(bundle), bundle)
    wrong = sum((opened[n].delta() - person[n].delta()).square().sum() for n in person)
    assert (wrong / sum(f.delta().square().sum() for f in person.values())) ** 0.5 < 0.01


def test_zero_rows_survive_quantisation(bundle):
    zero = {name: Factors(f.left * 0, f.right) for name, f in someone(bundle).items()}
    opened = unpack(describe(bundle, zero, class_noun="face", kept_step=0), bundle)
    assert all(torch.count_nonzero(factors.left) == 0 for factors in opened.values())


def test_stable_diffusion_at_rank_four_stays_under_120_kb(bundle):
    """192 targets, none narrower than the basis, by the same code that packs any bundle."""
    targets = tuple(Target(f"unet.layer{number}", 320, 320) for number in range(192))
    wide = replace(bundle, config=replace(bundle.config, lidb=replace(bundle.config.lidb, a=100, b=50)))
    wide.__dict__.update(targets=targets, fingerprint="0" * 16)
    person = {target.name: Factors(torch.randn(100, 4), torch.randn(4, 50)) for target in targets}
    data = to_bytes(describe(wide, person, class_noun="face", kept_step=40))
    assert len(data) <= 120_000
    assert from_bytes(data).values.numel() == 115_200


@pytest.mark.parametrize("data", [b"", b"short", b"%PDF-1.7 " * 50, save({"values": torch.zeros(3)})])
def test_other_files_are_refused(data):
    with pytest.raises(WeightsFormat):
        from_bytes(data)


def test_a_truncated_file_is_refused(bundle):
    with pytest.raises(WeightsFormat):
        from_bytes(to_bytes(packed(bundle))[:-10])


def test_another_version_is_named(bundle):
    weights = packed(bundle)
    later = replace(weights, metadata=replace(weights.metadata, version=9))
    with pytest.raises(WeightsFormat, match="version 9"):
        from_bytes(to_bytes(later))


@pytest.mark.parametrize("pin", ["fingerprint", "basis", "targets", "bundle"])
def test_weights_of_another_bundle_basis_or_targets_do_not_fit(bundle, pin):
    weights = packed(bundle)
    foreign = replace(weights, metadata=replace(weights.metadata, **{pin: "another"}))
    with pytest.raises(WeightsMismatch, match="another"):
        merged_factors(foreign, bundle)


def test_numbers_that_are_not_finite_or_missing_are_refused(bundle):
    weights = packed(bundle, precision="fp32")
    with pytest.raises(WeightsFormat, match="finite"):
        unpack(replace(weights, values=weights.values * float("nan")), bundle)
    with pytest.raises(WeightsFormat, match="numbers"):
        unpack(replace(weights, values=weights.values[:-1]), bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": "4"},
        {"rank": 0},
        {"rank": True},
        {"kind": "other"},
        {"kind": "lora"},
        {"precision": "int4"},
        {"prompt": 3},
    ],
    ids=str,
)
def test_a_description_of_the_wrong_kind_is_refused(bundle, change):
    weights = packed(bundle)
    text = json.dumps({**asdict(weights.metadata), **change})
    data = save({"values": weights.values, "scales": weights.scales}, metadata={"lidb": text})
    with pytest.raises(WeightsFormat, match="description"):
        from_bytes(data)


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", "[" * 100_000, "not JSON"], ids=["list", "number", "empty", "deep", "text"]
)
def test_a_description_that_is_none_is_refused(bundle, text):
    with pytest.raises(WeightsFormat, match="it is not safetensors"):
        from_bytes(save({"values": torch.zeros(3), "scales": torch.zeros(3)}, metadata={"lidb": text}))


def test_a_file_with_numbers_that_are_not_finite_does_not_open(bundle):
    weights = packed(bundle)
    data = to_bytes(replace(weights, scales=torch.full_like(weights.scales, float("inf"))))
    with pytest.raises(WeightsFormat, match="finite"):
        from_bytes(data)


def test_a_file_over_the_limit_is_not_read(monkeypatch, bundle):
    data = to_bytes(packed(bundle))
    monkeypatch.setattr("core.hyperdreambooth.formats.lidb_file.LARGEST", len(data) - 1)
    with pytest.raises(WeightsFormat, match="at most"):
        from_bytes(data)


def test_unknown_fields_are_refused(bundle):
    weights = packed(bundle)
    text = json.dumps({"format": "hyperdreambooth.lidb", "version": 1, "extra": 1})
    data = save({"values": weights.values, "scales": weights.scales}, metadata={"lidb": text})
    with pytest.raises(WeightsFormat, match="fields"):
        from_bytes(data)
