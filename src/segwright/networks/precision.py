"""The precision a network is evaluated in, by its name in the settings of training and prediction (method 9.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

AUTOCAST_TYPES: Mapping[str, torch.dtype | None] = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Type of torch's mixed precision; None: all is float32."""


def resolve_precision(precision: str, device_type: str) -> str:
    """``auto`` is fp16 on CUDA, as in v2, and fp32 elsewhere; any other name stays."""
    if precision != "auto":
        return precision
    return "fp16" if device_type == "cuda" else "fp32"
