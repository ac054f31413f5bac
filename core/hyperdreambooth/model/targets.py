"""Which layers of a Stable-Diffusion-type pipeline are personalized, and in which order.

The ordered list of targets is part of the ``.lidb`` file format: text encoders first, then the UNet, each in the order
of ``named_modules``.

The paper (section 4.1) says "about 30K variables", without listing the layers. Presets:

``attention``        query, key, value and output of every attention layer: 176 layers of SD 1.5, 26,400 variables.
``attention+geglu``  the UNet's GEGLU projections as well: 192 layers, 28,800 variables = 115.2 KB in fp32.
``convolutions``     those of the UNet's residual blocks and samplers: 64 layers of SD 1.5, 9,600 variables. Small
                     models, whose first level has no attention, hold faces there.
``up-convolutions``  those of them that are in the UNet's up blocks: 39 layers of SD 1.5, 5,850 variables. No gradient
                     has to pass through the other half.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from torch import nn

from core.errors import BundleError
from core.hyperdreambooth.model.config import Preset
from core.hyperdreambooth.model.target import Target

_UNET_ATTENTION = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$")
_UNET_GEGLU = re.compile(r"\.ff\.net\.0\.proj$")
_RESIDUAL = "conv1|conv2|conv_shortcut"
_UNET_CONVOLUTION = re.compile(rf"\.({_RESIDUAL}|(up|down)samplers\.0\.conv)$")
_UNET_UP_CONVOLUTION = re.compile(rf"^up_blocks\..*\.({_RESIDUAL}|upsamplers\.0\.conv)$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$")

_PATTERNS: Mapping[Preset, Mapping[str, tuple[re.Pattern[str], ...]]] = {
    "attention": {"text_encoder": (_TEXT_ATTENTION,), "unet": (_UNET_ATTENTION,)},
    "attention+geglu": {"text_encoder": (_TEXT_ATTENTION,), "unet": (_UNET_ATTENTION, _UNET_GEGLU)},
    "convolutions": {"unet": (_UNET_CONVOLUTION,)},
    "up-convolutions": {"unet": (_UNET_UP_CONVOLUTION,)},
}


def find_targets(components: Mapping[str, nn.Module], preset: Preset) -> tuple[Target, ...]:
    """The targets of ``components`` (``{"text_encoder": ..., "unet": ...}``, also ``text_encoder_2``), in file order.

    Raises:
        BundleError: a component has no layer that the preset personalizes.
    """
    found: list[Target] = []
    for component in sorted(components, key=lambda name: (not name.startswith("text_encoder"), name)):
        patterns = _patterns_for(component, preset)
        layers = [
            _target(f"{component}.{name}", layer)
            for name, layer in components[component].named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d) and any(pattern.search(name) for pattern in patterns)
        ]
        if patterns and not layers:
            raise BundleError(f"{component} has no layer of the targets preset {preset!r}")
        found += layers
    return tuple(found)


def variables(targets: Iterable[Target], *, a: int, b: int, rank: int) -> int:
    """How many numbers one subject's weights are: the sum of ``a r + r b`` over the targets."""
    return sum(rank * sum(target.capped(a, b)) for target in targets)


def targets_hash(targets: Iterable[Target]) -> str:
    """A short hash of the ordered list of names and shapes, written into every weight file."""
    listing = json.dumps([[target.name, target.n, target.m] for target in targets], separators=(",", ":"))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _patterns_for(component: str, preset: Preset) -> tuple[re.Pattern[str], ...]:
    kind = "text_encoder" if component.startswith("text_encoder") else component
    return _PATTERNS[preset].get(kind, ())


def _target(name: str, layer: nn.Linear | nn.Conv2d) -> Target:
    if isinstance(layer, nn.Linear):
        return Target(name, layer.out_features, layer.in_features)
    side = layer.kernel_size[0]
    return Target(name, layer.out_channels, layer.in_channels * side * side, side)
