"""HyperDreamBooth with one thing changed at a time: a setting of the bundle, or the photo it is given.

These rows answer what the paper leaves open: relaxed rank, basis and its size, steps, guidance; blur, light, tilt and
occlusion of the photo.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from core.errors import SettingsError
from core.hyperdreambooth.model.bundle import Bundle
from core.lab.evaluation.methods import METHODS, Method, Personalized
from core.lab.evaluation.subjects import Subject

Photo = UInt8[np.ndarray, "h w 3"]


def varied(setting: str) -> list[Method]:
    """Rows for "KEY=VALUE,VALUE,...": ``finetune.rank=1,2,5,10``. Values are JSON, or text as it stands.

    Raises:
        SettingsError: there is no "=".
    """
    key, equals, values = setting.partition("=")
    if not equals:
        raise SettingsError(f"--vary {setting}: give KEY=VALUE,VALUE,... such as finetune.rank=1,2,5,10")
    return [_with_setting(key, value) for value in values.split(",")]


def degraded(name: str) -> Method:
    """The row for a photo made worse in one way, by its name in ``DEGRADATIONS``."""
    worsen = DEGRADATIONS[name]

    def run(bundle: Bundle, chosen: Sequence[Subject], seed: int, rate: float | None) -> list[Personalized]:
        worse = [_with_photos(subject, np.stack([worsen(photo) for photo in subject.photos])) for subject in chosen]
        return METHODS["hyperdreambooth"].run(bundle, worse, seed, rate)

    return Method(f"photo-{name}", f"photo: {name.replace('-', ' ')}", run)


def _with_photos(subject: Subject, photos: UInt8[np.ndarray, "n h w 3"]) -> Subject:
    return replace(subject, photo=photos[0], more=photos[1:] if len(photos) > 1 else None)


def _with_setting(key: str, text: str) -> Method:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text

    def run(bundle: Bundle, chosen: Sequence[Subject], seed: int, rate: float | None) -> list[Personalized]:
        changed = bundle.configured(bundle.config.changed(key, value))
        return METHODS["hyperdreambooth"].run(changed, chosen, seed, rate)

    def missing(bundle: Bundle) -> str | None:
        changed = bundle.config.changed(key, value)
        if bundle.hypernetwork is not None and changed.lidb != bundle.config.lidb:
            return "the bundle's hypernetwork was made for its own basis: try a copy of the bundle without one"
        return None

    return Method(f"{key}={text}", f"{key} = {text}", run, missing=missing)


def _through(change: Callable[[Image.Image], Image.Image]) -> Callable[[Photo], Photo]:
    return lambda photo: np.asarray(change(Image.fromarray(photo)), dtype=np.uint8)


def _blur(share: float) -> Callable[[Photo], Photo]:
    return _through(lambda image: image.filter(ImageFilter.GaussianBlur(share * image.width)))


def _light(gain: float) -> Callable[[Photo], Photo]:
    return lambda photo: np.clip(photo.astype(np.float32) * gain, 0, 255).astype(np.uint8)


def _side_light(photo: Photo) -> Photo:
    ramp = np.linspace(1.4, 0.2, photo.shape[1], dtype=np.float32)[None, :, None]
    return np.clip(photo * ramp, 0, 255).astype(np.uint8)


def _tilted(degrees: float) -> Callable[[Photo], Photo]:
    return _through(lambda image: image.rotate(degrees, Image.Resampling.BICUBIC))


def _narrowed(photo: Photo) -> Photo:
    """Squeezed to two thirds of its width, as a turned head is, on a background of its own border."""
    height, width = photo.shape[:2]
    narrow = np.asarray(Image.fromarray(photo).resize((width * 2 // 3, height), Image.Resampling.BICUBIC))
    left = (width - narrow.shape[1]) // 2
    return np.pad(narrow, ((0, 0), (left, width - narrow.shape[1] - left), (0, 0)), mode="edge")


def _covered(top: float, bottom: float) -> Callable[[Photo], Photo]:
    def cover(photo: Photo) -> Photo:
        worse = photo.copy()
        worse[int(top * len(photo)) : int(bottom * len(photo))] = 96
        return worse

    return cover


def _coarse(side: int) -> Callable[[Photo], Photo]:
    return _through(lambda image: image.resize((side, side), Image.Resampling.LANCZOS).resize(image.size))


DEGRADATIONS: Mapping[str, Callable[[Photo], Photo]] = {
    "slightly-blurred": _blur(0.015),
    "blurred": _blur(0.03),
    "dark": _light(0.4),
    "overexposed": _light(1.8),
    "lit-from-the-side": _side_light,
    "tilted-15-degrees": _tilted(15.0),
    "tilted-30-degrees": _tilted(30.0),
    "narrowed": _narrowed,
    "eyes-covered": _covered(0.40, 0.53),
    "mouth-covered": _covered(0.66, 0.80),
    "32-pixels": _coarse(32),
}
"""Ways a photo can be worse; places are those of the framing (eyes at 0.467 of the height, mouth at 0.713)."""
