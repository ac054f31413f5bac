"""docs/lidb-format.md is enough to read the file: this reader was written from it, and uses nothing of this project."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from core.errors import WeightsFormat, WeightsMismatch
from core.hyperdreambooth.formats.lidb_weights import from_bytes, merged_factors, to_bytes
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.settings import EMBEDDED_BUNDLE
from tests.core.hyperdreambooth.plain import assert_alike, narrow_stable_diffusion, ours, someone, theirs

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "out_proj")
ENDS = {
    "attention+geglu": (*ATTENTION, "ff.net.0.proj"),
    "convolutions": ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    "up-convolutions": ("conv1", "conv2", "conv_shortcut", "upsamplers.0.conv"),
}
BEGINS = {"up-convolutions": "up_blocks."}


@pytest.fixture(scope="module")
def embedded():
    return load_bundle(EMBEDDED_BUNDLE, device="cpu")


def add_by_the_book(file, pipeline, most_a, most_b):
    """Open the file, and add the change to the weights of a plain pipeline."""
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["lidb"])
        values, scales = opened.get_tensor("values"), opened.get_tensor("scales")
    assert (said["format"], said["version"], said["kind"]) == ("hyperdreambooth.lidb", 1, "lidb")
    targets = [
        (f"{component}.{name}", layer.weight.flatten(1))
        for component in ("text_encoder", "unet")
        for name, layer in getattr(pipeline, component).named_modules()
        if name.startswith(BEGINS.get(said["preset"], "")) and name.endswith(ENDS[said["preset"]])
    ]
    listing = json.dumps([[name, *weight.shape] for name, weight in targets], separators=(",", ":"))
    assert said["targets"] == hashlib.sha256(listing.encode()).hexdigest()[:16]
    assert said["layers"] == len(targets)
    digest = hashlib.sha256(f"{said['basis_seed']}/{most_a}/{most_b}/orthonormal".encode())
    with torch.no_grad():
        for name, weight in targets:
            n, m = weight.shape
            key = hashlib.sha256(f"{said['basis_seed']}/{name}/{n}x{m}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
            a_aux = orthonormal(torch.randn(n, min(most_a, n), generator=generator, dtype=torch.float64))
            b_aux = orthonormal(torch.randn(m, min(most_b, m), generator=generator, dtype=torch.float64)).T
            digest.update(name.encode())
            for matrix in (a_aux, b_aux):
                digest.update((matrix.float().double() * 1e4).round().int().numpy().tobytes())
            pair = []
            for width in (min(most_a, n), min(most_b, m)):
                rows = values[: said["rank"] * width].float().view(said["rank"], width)
                pair.append(rows * scales[: said["rank"], None].float())
                values, scales = values[said["rank"] * width :], scales[said["rank"] :]
            a, b = pair[0].T.double(), pair[1].double()
            weight.add_(a_aux @ a @ b @ b_aux)  # in place: the flattened weight is the layer's own
    assert said["basis"] == digest.hexdigest()[:16]
    assert values.numel() == scales.numel() == 0


def orthonormal(matrix):
    q, r = torch.linalg.qr(matrix)
    return q * torch.sign(torch.diagonal(r))


def test_a_plain_pipeline_draws_the_same_picture_from_the_file(embedded, tmp_path):
    plain = StableDiffusionPipeline.from_pretrained(EMBEDDED_BUNDLE, safety_checker=None)
    assert_read_by_the_book(embedded, plain, tmp_path / "person.lidb")


def test_so_does_one_with_stable_diffusions_layers(tmp_path):
    plain = narrow_stable_diffusion()
    bundle = from_pipeline(plain, BundleConfig(name="narrow", resolution=64))
    assert_read_by_the_book(bundle, plain, tmp_path / "person.lidb")


def assert_read_by_the_book(bundle, plain, file):
    weights = from_bytes(to_bytes(someone(bundle)))
    file.write_bytes(to_bytes(weights))
    expected, without = ours(bundle, weights), theirs(plain, bundle)
    add_by_the_book(file, plain, bundle.config.lidb.a, bundle.config.lidb.b)
    assert_alike(theirs(plain, bundle), expected, without=without, levels=1)


def test_another_version_and_another_bundle_are_refused(embedded):
    weights = someone(embedded)
    later = replace(weights, metadata=replace(weights.metadata, version=2))
    with pytest.raises(WeightsFormat, match=r"version 2; this release opens hyperdreambooth.lidb version 1"):
        from_bytes(to_bytes(later))
    foreign = replace(weights, metadata=replace(weights.metadata, bundle="other", fingerprint="0123"))
    with pytest.raises(WeightsMismatch, match=r"of bundle 'other'.*runs 'faces-128'.*personalize the photo again"):
        merged_factors(from_bytes(to_bytes(foreign)), embedded)
