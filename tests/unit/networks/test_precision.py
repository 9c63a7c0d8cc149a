"""The precision a name stands for on a device."""

from __future__ import annotations

import pytest
import torch

from segwright.networks.precision import AUTOCAST_TYPES, resolve_precision


@pytest.mark.parametrize(("device_type", "chosen"), [("cpu", "fp32"), ("cuda", "fp16"), ("mps", "fp32")])
def test_auto_is_half_precision_on_cuda_only(device_type: str, chosen: str) -> None:
    assert resolve_precision("auto", device_type) == chosen
    assert resolve_precision("bf16", device_type) == "bf16"


def test_a_convolution_runs_in_the_type_its_precision_names() -> None:
    layer, image = torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    for kind in AUTOCAST_TYPES.values():
        with torch.no_grad(), torch.autocast("cpu", kind, enabled=kind is not None):
            assert layer(image).dtype == (kind or torch.float32)
