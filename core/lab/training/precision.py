"""In which numbers a step computes: half precision only where the processor has units for it."""

from __future__ import annotations

import torch


def quickest(device: torch.device) -> torch.dtype | None:
    """bfloat16 on GPUs and on CPUs with AVX-512; None, float32, on others: halves take them five times as long."""
    if device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return None
    return torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Compute in ``dtype`` where it is safe to; None is float32."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
