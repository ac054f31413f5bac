"""onnxruntime without its telemetry: whatever needs it takes it from here, and import-linter holds that.

The official builds write a device id into the user's cache folder, and report to Microsoft from the first session on.
Its Privacy.md names one way to have neither, this variable, and it counts only when it is set before the first import.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
