"""Any kind of picture to sRGB, by the colour profile that came with it; 16 bits to 8, transparency laid over white."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageCms

from api.server.decoding.header import MAX_PROFILE_BYTES

Convert = Callable[[Image.Image], Image.Image]

_MODES = {"RGB ": "RGB", "CMYK": "CMYK", "GRAY": "L"}
"""The colour space of a profile -> the mode of the pictures that it describes."""
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_STEPS = 9
"""Of each channel, in the cube of colours that shows whether a profile changes anything."""


def to_srgb(picture: Image.Image, profile: bytes) -> Convert:
    """What makes RGB of a strip of this picture. A profile that is broken, or of another kind of picture, is ignored.

    It applies relative colorimetric intent with black point compensation, as photo editors do.
    """
    mode = _base_mode(picture.mode)
    convert = _by_profile(profile, mode) or (lambda strip: strip.convert("RGB"))

    def strip_to_rgb(strip: Image.Image) -> Image.Image:
        alpha = _alpha(strip)
        colours = convert(_base(strip, mode))
        if alpha is None:
            return colours
        white = Image.new("RGB", strip.size, "white")
        white.paste(colours, (0, 0), alpha)
        return white

    return strip_to_rgb


def _base_mode(mode: str) -> str:
    """What a picture's colours are converted to without loss: grey, RGB or CMYK."""
    if mode in ("1", "L", "LA", "La") or mode.startswith("I"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _base(strip: Image.Image, mode: str) -> Image.Image:
    if strip.mode.startswith("I"):  # 16 bits: the higher byte of each
        return Image.frombytes("L", strip.size, strip.tobytes("raw", "I;16B")[::2])
    return strip.convert(mode)


def _alpha(strip: Image.Image) -> Image.Image | None:
    if strip.mode.startswith("I") or not strip.has_transparency_data:
        return None
    return strip.convert("RGBA").getchannel("A")


def _by_profile(profile: bytes, mode: str) -> Convert | None:
    """The conversion by a profile; None when it cannot be used, or changes nothing that can be seen."""
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(source.profile.xcolor_space) != mode:
            return None
        srgb = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", intent, _FLAGS)
        if mode == "RGB" and not _changes(transform):
            return None
    except Exception:  # noqa: BLE001  (the profile is the sender's; whatever is wrong with it, the picture may be fine)
        return None
    return transform.apply


def _changes(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether any of a cube of colours becomes another, by more than rounding."""
    levels = [round(255 * step / (_STEPS - 1)) for step in range(_STEPS)]
    colours = bytes(value for red in levels for green in levels for blue in levels for value in (red, green, blue))
    cube = Image.frombytes("RGB", (_STEPS**2, _STEPS), colours)
    after = transform.apply(cube).tobytes()
    return any(abs(new - old) > 1 for new, old in zip(after, colours, strict=True))
