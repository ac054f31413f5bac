"""docs/lidb-format.md is enough to read the file: this reader was written from it, and uses nothing of this project."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from core.errors import WeightsFormat, WeightsMismatch
from core.hyperdreambooth.diffusion import load_bundle
from core.hyperdreambooth.weights import from_bytes, merged_factors, to_bytes
from core.settings import EMBEDDED_BUNDLE
from tests.core.hyperdreambooth.plain import assert_alike, ours, someone, theirs

PARTS = (".attn1.", ".attn2.", ".ff.net.0.proj", ".self_attn.")
ENDS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "q_proj", "k_proj", "v_proj", "out_proj")


@pytest.fixture(scope="module")
def embedded():
    return load_bundle(EMBEDDED_BUNDLE, device="cpu")


def add_by_the_book(file, pipeline):
    """Open the file, and add the change to the weights of a plain pipeline."""
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["lidb"])
        values, scales = opened.get_tensor("values"), opened.get_tensor("scales")
    assert (said["format"], said["version"], said["kind"]) == ("hyperdreambooth.lidb", 1, "lidb")
    targets = [
        (f"{component}.{name}", layer.weight)
        for component in ("text_encoder", "unet")
        for name, layer in getattr(pipeline, component).named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(ENDS) and any(part in name for part in PARTS)
    ]
    listing = json.dumps([[name, *weight.shape] for name, weight in targets], separators=(",", ":"))
    assert said["targets"] == hashlib.sha256(listing.encode()).hexdigest()[:16]
    assert said["layers"] == len(targets)
    widths = json.loads((EMBEDDED_BUNDLE / "bundle.json").read_text())["lidb"]
    most_a, most_b = widths["a"], widths["b"]
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
            weight.add_(a_aux @ a @ b @ b_aux)
    assert said["basis"] == digest.hexdigest()[:16]
    assert values.numel() == scales.numel() == 0


def orthonormal(matrix):
    q, r = torch.linalg.qr(matrix)
    return q * torch.sign(torch.diagonal(r))


def test_a_plain_pipeline_draws_the_same_picture_from_the_file(embedded, tmp_path):
    weights = from_bytes(to_bytes(someone(embedded)))
    file = tmp_path / "person.lidb"
    file.write_bytes(to_bytes(weights))
    expected = ours(embedded, weights)
    plain = StableDiffusionPipeline.from_pretrained(EMBEDDED_BUNDLE, safety_checker=None)
    without = theirs(plain, embedded)
    add_by_the_book(file, plain)
    assert_alike(theirs(plain, embedded), expected, without=without, levels=1)


def test_another_version_and_another_bundle_are_refused(embedded):
    weights = someone(embedded)
    later = replace(weights, metadata=replace(weights.metadata, version=2))
    with pytest.raises(WeightsFormat, match=r"version 2; this release opens hyperdreambooth.lidb version 1"):
        from_bytes(to_bytes(later))
    foreign = replace(weights, metadata=replace(weights.metadata, bundle="other", fingerprint="0123"))
    with pytest.raises(WeightsMismatch, match=r"of bundle 'other'.*runs 'faces-64'.*personalise the photo again"):
        merged_factors(from_bytes(to_bytes(foreign)), embedded)
