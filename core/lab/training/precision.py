"""In which numbers a step computes: half precision only where the processor has units for it."""

from __future__ import annotations

import torch


def quickest(device: torch.device) -> torch.dtype | None:
    """bfloat16 on GPUs and on CPUs that multiply tiles of it (AMX); None, float32, on others.

    AVX-512 alone has bfloat16 products as well, but the convolutions made of them are slower than float32's (11 against
    16 rows/s of a UNet on one core); without it they take five times as long.
    """
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():  # noqa: SLF001  # there is no public name
        return None
    return torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Compute in ``dtype`` where it is safe to; None is float32."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
