"""Before a training: does it fit the device, and what is the nearest that would (free memory is given)?"""

from __future__ import annotations

import logging
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from segwright.core.architecture import Architecture
from segwright.core.labels import Labels
from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan
from segwright.networks.build import build_network
from segwright.training import fold, memory
from segwright.training.attempts import OutOfMemory
from segwright.training.memory import nearest_fits, parameter_count, require_memory, training_bytes
from tests.unit.training.fake_training import make_data, make_request

GIB = 1 << 30
LABELS = Labels((("background", 0), ("a", 1), ("b", 2)))
STRIDES = ((1, 1, 1), *((2, 2, 2),) * 5)
PLAIN = Architecture("plain_unet", (32, 64, 128, 256, 320, 320), ((3, 3, 3),) * 6, STRIDES, (2,) * 6, (2,) * 5)
RESIDUAL = replace(PLAIN, kind="residual_unet", blocks_per_stage=(1, 3, 4, 6, 6, 6), convs_per_stage_decoder=(1,) * 5)
SETTINGS = TrainingSettings().resolved()


def plan(architecture: Architecture = PLAIN, patch: tuple[int, ...] = (128, 128, 128), batch: int = 2) -> TrainPlan:
    return TrainPlan("3d_fullres", 1, LABELS, patch, batch, architecture, True, (False,))


def test_nnunets_own_plans_fit_the_memory_they_were_made_for() -> None:
    """128^3 x 2 with 32 features is what v2 plans for 8 GB (method 3.6); single precision needs more."""
    half = training_bytes(plan(), SETTINGS, "fp16")
    assert 6 * GIB < half < 9 * GIB
    assert 1.5 * half < training_bytes(plan(), SETTINGS, "fp32") < 2 * half
    assert training_bytes(plan(batch=4), SETTINGS, "fp16") > 1.8 * half


def test_augmenting_on_the_device_counts() -> None:
    """Two batches of 38 MB more beside a step's feature maps; a small network needs less than augmenting does."""
    on_device = replace(SETTINGS, augment_on="device")
    large, small = plan(), plan(replace(PLAIN, features_per_stage=(1,) * 6))
    batch = 2 * 128**3 * (4 + 2 * 8 / 7)
    more = training_bytes(large, on_device, "fp16") - training_bytes(large, SETTINGS, "fp16")
    assert more == pytest.approx(2 * batch, rel=1e-6)
    window = 6 * 2 * (205**3 + 128**3) + (200 << 20)  # a sample, bordered and turned
    wanted = 1.5 * batch + window + parameter_count(small) * 12
    assert training_bytes(small, on_device, "fp16") == pytest.approx(wanted, rel=1e-6)
    cascade = replace(large, previous_stage="3d_lowres")
    assert training_bytes(cascade, on_device, "fp16") == training_bytes(cascade, SETTINGS, "fp16")


@pytest.mark.parametrize("architecture", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_parameters_are_counted_to_a_few_percent(architecture: Architecture) -> None:
    network = build_network(architecture, 1, LABELS.num_outputs, True)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert parameter_count(plan(architecture)) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("free_gib", [6.0, 3.0, 1.5])
@pytest.mark.parametrize("batch", [2, 5, 12])
def test_the_nearest_sizes_fit_and_the_next_larger_ones_do_not(free_gib: float, batch: int) -> None:
    wanted, free = plan(patch=(96, 160, 160), batch=batch), free_gib * GIB
    fits = nearest_fits(wanted, SETTINGS, "fp16", free)
    assert fits
    for size in fits:
        chosen = replace(wanted, patch_size=size.patch_size, batch_size=size.batch_size)
        assert training_bytes(chosen, SETTINGS, "fp16") == size.needed_bytes <= free
        assert all(edge % 32 == 0 for edge in size.patch_size) and size.batch_size >= 2
        if size.patch_size == wanted.patch_size:
            assert training_bytes(replace(chosen, batch_size=size.batch_size + 1), SETTINGS, "fp16") > free
        else:
            grown = [tuple(e + 32 * (a == axis) for a, e in enumerate(size.patch_size)) for axis in range(3)]
            allowed = [patch for patch in grown if all(e <= w for e, w in zip(patch, wanted.patch_size, strict=True))]
            assert max(training_bytes(replace(chosen, patch_size=p), SETTINGS, "fp16") for p in allowed) > free
            aspect = [edge / before for edge, before in zip(size.patch_size, wanted.patch_size, strict=True)]
            assert max(aspect) / min(aspect) <= 2


def test_the_message_says_how_to_set_it_and_uncertain_cases_are_tried(caplog: pytest.LogCaptureFixture) -> None:
    require_memory(plan(), SETTINGS, "fp16", "cuda", None)
    require_memory(plan(), SETTINGS, "fp16", "cuda", 12 * GIB)
    with caplog.at_level(logging.WARNING):
        require_memory(plan(), SETTINGS, "fp16", "cuda", 6 * GIB)
    assert "tried nevertheless" in caplog.text
    message = (
        r"3d_fullres: batches of 2 x 128 x 128 x 128 \(about \d.\d GiB\) in fp16, but 2.0 GiB of cuda's memory are "
        r"free; the nearest that fit are 2 x (\d+) x (\d+) x (\d+) .*set planning.overrides.3d_fullres: "
        r"\{patch_size: \[\1, \2, \3\], batch_size: 2\}"
    )
    with pytest.raises(OutOfMemory, match=message):
        require_memory(plan(), SETTINGS, "fp16", "cuda", 2 * GIB)
    with pytest.raises(OutOfMemory, match="no patch and batch of this network fit"):
        require_memory(plan(), SETTINGS, "fp16", "cuda", 0.1 * GIB)


def test_a_training_that_cannot_fit_ends_before_it_begins_and_says_so_in_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "free_memory", lambda device: 1000)
    made: list[object] = []
    with pytest.raises(OutOfMemory, match="2d: batches of 2 x 16 x 16"):
        run = make_data(spoil=lambda epoch, step, batch: made.append(batch) or batch)  # type: ignore[func-returns-value]
        fold.run_training(make_request(tmp_path), run, {})
    assert not made and '"out_of_memory"' in (tmp_path / "state" / "attempts.json").read_text()
    assert prod(memory._total_strides(PLAIN)) == 32**3
