"""plans.json of nnU-Net v2, old and new: the same configuration, or an error that names what is not available."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import DatasetError, PlansError
from segwright.core.plans import Resampling
from segwright.sharing.nnunet_v2.plans_in import facts_from_v2, plans_from_v2
from tests.unit.sharing.nnunet_v2 import made
from tests.unit.sharing.nnunet_v2.importing import assert_refused

RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def changed(*path: str, value: Any) -> dict[str, Any]:
    """plans.json with one entry of ``3d_fullres`` set, or removed where the value is ``...``."""
    record = copy.deepcopy(made.plans_record())
    entry = record["configurations"]["3d_fullres"]
    for key in path[:-1]:
        entry = entry[key]
    if value is ...:
        del entry[path[-1]]
    else:
        entry[path[-1]] = value
    return record


def read(record: Any, *names: str) -> Any:
    return plans_from_v2(record, names or ("3d_fullres",), "model/plans.json")


def test_new_plans() -> None:
    plans = read(made.plans_record(), *made.plans_record()["configurations"])
    cascade = plans.configuration("3d_cascade_fullres")
    assert cascade.previous_stage == "3d_lowres" and cascade.architecture == made.architecture(3)
    assert plans.configurations["3d_cascade_fullres"] == made.plans_record()["configurations"]["3d_cascade_fullres"]


def test_old_plans_with_inheritance_of_single_keys() -> None:
    """nnU-Net resolves inheritance first, so a child may change one number of the old description."""
    record = made.old_style(made.plans_record())
    record["configurations"]["wide"] = {"inherits_from": "3d_fullres", "UNet_base_num_features": 3, "batch_size": 5}
    plans = read(record, "2d", "3d_cascade_fullres", "wide")
    assert plans.configuration("2d").architecture == made.architecture(2)
    assert plans.configuration("3d_cascade_fullres").architecture == made.architecture(3)
    assert plans.configuration("wide").architecture.features_per_stage == (3, 4)  # at most unet_max_num_features
    assert plans.configuration("wide").batch_size == 5
    assert len(plans.intensities) == 1


def test_a_child_may_replace_what_is_not_available_in_its_parent() -> None:
    """nnU-Net resolves inheritance before it looks at the network."""
    base = made.entry(architecture={**made.entry()["architecture"], "network_class_name": "x.y.PrimusM"})
    record = made.plans_record(
        base=base,
        **{"3d_fullres": {"inherits_from": "base", "architecture": made.entry()["architecture"], "batch_size": 5}},
    )
    plans = read(record, "3d_fullres", "3d_cascade_fullres")
    child = plans.configuration("3d_fullres")
    assert (child.architecture, child.batch_size, child.patch_size) == (made.architecture(3), 5, (8, 8, 8))
    assert "base" not in plans.configurations
    assert plans.lineage("3d_cascade_fullres") == ("3d_cascade_fullres", "3d_fullres")
    with pytest.raises(PlansError, match=r"the network x\.y\.PrimusM is not available"):
        read(made.plans_record(base=base, **{"3d_fullres": {"inherits_from": "base"}}))


def test_arguments_nnunet_leaves_out_get_its_classes_defaults() -> None:
    record = changed("architecture", "arch_kwargs", "conv_bias", value=...)
    record["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["norm_op_kwargs"] = None
    record["configurations"]["3d_fullres"]["resampling_fn_data_kwargs"] = {"separate_z_anisotropy_threshold": 3}
    configuration = read(record).configuration("3d_fullres")
    network = configuration.architecture
    assert (network.conv_bias, network.norm_affine, network.norm_eps) == (False, False, 1e-5)
    assert configuration.resampling_image == Resampling(False, 3, 0, False)


def test_residual_encoders_under_both_paths() -> None:
    for name in (RESIDUAL, RESIDUAL.replace(".unet.", ".residual_unet.")):
        record = changed("architecture", "network_class_name", value=name)
        arguments = record["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
        arguments["stem_channels"] = None
        network = read(record).configuration("3d_fullres").architecture
        assert network.kind == "residual_unet" and network.blocks_per_stage == (1, 1) and not network.extra


ARGUMENTS = ("architecture", "arch_kwargs")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("architecture", "network_class_name"), "os.system", "the network os.system is not available"),
        (("architecture", "network_class_name"), "x.y.PrimusM", "the network x.y.PrimusM is not available"),
        ((*ARGUMENTS, "norm_op"), "torch.nn.BatchNorm3d", "norm_op = torch.nn.BatchNorm3d is not available"),
        ((*ARGUMENTS, "norm_op"), ..., "norm_op = None"),
        ((*ARGUMENTS, "conv_op"), "torch.nn.modules.conv.Conv2d", "conv_op = torch.nn.modules.conv.Conv2d"),
        ((*ARGUMENTS, "conv_op"), "builtins.Conv3d", "conv_op = builtins.Conv3d"),
        ((*ARGUMENTS, "nonlin"), "torch.nn.GELU", "nonlin = torch.nn.GELU"),
        ((*ARGUMENTS, "dropout_op"), "torch.nn.Dropout3d", "dropout_op = torch.nn.Dropout3d"),
        ((*ARGUMENTS, "nonlin_kwargs"), {"negative_slope": 0.2}, "negative_slope = 0.2"),
        ((*ARGUMENTS, "norm_op_kwargs"), {"track_running_stats": True}, "track_running_stats = True"),
        ((*ARGUMENTS, "nonlin_first"), True, "nonlin_first = True"),
        ((*ARGUMENTS, "squeeze_excitation"), True, "squeeze_excitation = True"),
        ((*ARGUMENTS, "n_stages"), 10**12, "stages is not available"),
        ((*ARGUMENTS, "n_conv_per_stage"), [1, 10**9], "more than 100 blocks"),
        ((*ARGUMENTS, "strides"), ..., "KeyError.*strides"),
        (("preprocessor_name",), "MyPreprocessor", "the preprocessor MyPreprocessor"),
        (("normalization_schemes",), ["MyNorm"], "the normalisation MyNorm is not available .known: CTNorm"),
        (("use_mask_for_norm",), [False, True], "different lengths"),
        (("resampling_fn_seg",), "no_resampling_hack", "resampling function no_resampling_hack"),
        (("resampling_fn_data_kwargs",), {"order": 3, "device": "cuda"}, "resampling with device = 'cuda'"),
        (("patch_size",), ..., "patch_size"),
        (("inherits_from",), "3d_fullres", "circle"),
        (("inherits_from",), "nowhere", "there is no configuration nowhere"),
    ],
)  # fmt: skip
def test_what_is_not_available_is_named(path: tuple[str, ...], value: Any, words: str) -> None:
    record = changed(*path, value=value)
    with pytest.raises(PlansError, match=rf"model/plans\.json: .*{words}"):
        read(record)
    if path != ("patch_size",):  # nobody asked for that configuration
        assert read(record, "2d").configuration("2d").is_2d


def test_other_files_are_refused() -> None:
    for record in ([], {}, {"configurations": 1}, {"configurations": {"3d_fullres": 3}}, {"configurations": {}}):
        with pytest.raises(PlansError, match=r"model/plans.json: "):
            read(record)
    with pytest.raises(PlansError, match="label manager MyManager"):
        read({**made.plans_record(), "label_manager": "MyManager"})
    with pytest.raises(PlansError, match="UNet of old is not available"):
        old = made.old_style(made.plans_record())
        old["configurations"]["3d_fullres"]["UNet_class_name"] = "UNet of old"
        read(old)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": [1 << 40] * 3}, "patch_size is"), ({"patch_size": [0, 8, 8]}, "patch_size is"),
        ({"spacing": [1.0] * 4}, "spacing_mm is"), ({"spacing": [1.0] * 2}, "not .* the same number of axes"),
    ],
)  # fmt: skip
def test_impossible_grids_are_refused(changes: dict[str, Any], words: str, root: Path, tmp_path: Path) -> None:
    plans = made.plans_record(**{"3d_fullres": made.entry(3, **changes)})
    made.model_folder(root, "3d_fullres", ("0",), plans=plans)
    assert_refused(root, tmp_path, rf"plans\.json: configuration 3d_fullres: not valid \(.*{words}", PlansError)


def test_names_of_channels_hold_no_control_characters() -> None:
    plans = read(made.plans_record())
    facts_from_v2({**made.FACTS, "channel_names": {"0": ""}}, plans, "model/dataset.json")  # nnU-Net takes any name
    with pytest.raises(DatasetError, match=r"model/dataset\.json: .*'.x1b\[2J' holds a control character"):
        facts_from_v2({**made.FACTS, "channel_names": {"0": "\x1b[2J"}}, plans, "model/dataset.json")


@pytest.mark.parametrize("keys", [("0", "1"), ("1", "2"), ("0000", "0001"), ("3", "12")])
def test_channels_are_numbered_from_zero(keys: tuple[str, str]) -> None:
    """nnU-Net only counts them; keys go by number, however the file orders them."""
    facts = {**made.FACTS, "channel_names": {keys[1]: "T2", keys[0]: "T1"}}
    names = facts_from_v2(facts, read(made.plans_record()), "model/dataset.json")["channel_names"]
    assert list(names.items()) == [("0", "T1"), ("1", "T2")]
