"""The decoders of what phones make beside JPEG: AVIF is Pillow's, HEIC an extra; who has neither is told what to do."""

from __future__ import annotations

import importlib
from typing import Any

from PIL import ImageFile, features

from api.server.decoding.signatures import unsupported

_WAY_OUT = 'set the camera to "Most Compatible", or export the photo as JPEG'
_HEIC = ("pi_heif", "pillow_heif")
"""Packages with the same decoder (libheif and libde265, LGPL); the second brings an encoder (x265, GPL) as well."""


def avif_decoder() -> type[ImageFile.ImageFile]:
    """Pillow's, in one thread. Raises UnsupportedMediaType where Pillow was built without it."""
    if not features.check("avif"):
        raise unsupported(f"AVIF is not read here: {_WAY_OUT}.")
    plugin: Any = importlib.import_module("PIL.AvifImagePlugin")
    plugin.DEFAULT_MAX_THREADS = 1
    decoder: type[ImageFile.ImageFile] = plugin.AvifImageFile
    return decoder


def heic_decoder() -> type[ImageFile.ImageFile]:
    """That of the extra `heic`, in one thread. Raises UnsupportedMediaType where it is not installed."""
    for name in _HEIC:
        try:
            plugin: Any = importlib.import_module(f"{name}.as_plugin")
            options: Any = importlib.import_module(f"{name}.options")
        except ImportError:
            continue
        options.DECODE_THREADS = 1
        options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
        decoder: type[ImageFile.ImageFile] = plugin.HeifImageFile
        return decoder
    raise unsupported(f"HEIC is not read here: {_WAY_OUT}.")
