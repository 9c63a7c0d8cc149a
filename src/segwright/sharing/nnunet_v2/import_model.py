"""Make a segwright model of what nnU-Net v2 trained: a results folder, one model's folder, or an exported zip.

Nothing in the input is executed, and nothing is written before all of it was read and found to fit together.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segwright.core.errors import ModelError, SegwrightError
from segwright.core.files import TEMPORARY_PREFIX
from segwright.sharing.archive import DEFAULT_LIMITS, extract_archive
from segwright.sharing.nnunet_v2.import_parts import write_model
from segwright.sharing.nnunet_v2.import_sources import Import, read_sources
from segwright.sharing.nnunet_v2.results_folder import choose, find_results

_IN_ZIP = re.compile(
    r"([A-Za-z0-9_.+-]+/){0,6}"
    r"[A-Za-z0-9_.+-]+\.(json|pth|pkl|png|pdf|txt|npz|b2nd|gz|nii|nrrd|mha|mhd|gipl|tif|tiff|bmp|jpg|jpeg)"
)
"""Files that may lie in an exported zip: what nnU-Net writes into results."""
_OF_CASES = re.compile(
    r"(.*/)?(fold_(\d+|all)/validation|crossval_results_folds_[^/]*|ensembles/ensemble___[^/]*|predicted_next_stage)/"
    r"(?P<name>.+)",
    re.DOTALL,
)
"""Files of single cases, whose names people choose, and beside them the evaluation."""
_EVALUATION = ("summary.json", "postprocessing.json", "postprocessing.pkl")
_EXTRA = re.compile(
    r"__MACOSX(/.*)?|(.*/)?\.[^/]*(/.*)?|(.*/)?((licen[sc]e|readme)(\.[^/]*)?|network_architecture)",
    re.IGNORECASE | re.DOTALL,
)
"""What people, their systems and nnU-Net's plots add to a folder."""
_LIMITS = replace(DEFAULT_LIMITS, entries=100_000, small_bytes=32 << 20)
"""Predictions of all cases may have been exported; the fingerprint repeats itself, and has 136 bytes a case."""


def import_model(
    source: Path | str,
    output: Path | str,
    *,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str | int] | None = None,
) -> Path:
    """Write the model folder ``output``; returns its path.

    What predicts is chosen by ``configurations``, else by nnU-Net's inference_information.json, else it is the only
    configuration there. Previous stages of cascades come along. Postprocessing and scores are taken from the
    cross-validation folder of the choice.

    Args:
        source: ``DatasetXXX_Name/``, one ``Trainer__Plans__configuration/``, or a zip of nnUNetv2_export_model_to_zip.
        configurations: names of configurations or model folders; several are averaged.
        folds: instead of those nnU-Net selected with, else of all that are finished.

    Raises:
        ModelError: the input is no such model, incomplete, damaged or unsafe, or ``output`` exists.
        PlansError: the plans need something segwright does not have.
        DatasetError: dataset.json is not valid.
        SettingsError: an unknown configuration or fold.
    """
    source, output = Path(source), Path(output)
    if output.exists() or output.is_symlink():
        raise ModelError(f"{output}: exists already and is never overwritten; choose another folder or move it away")
    wanted = None if folds is None else [str(fold) for fold in folds]
    beside = next(path for path in output.absolute().parents if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=beside) as temporary:
        folder = source.resolve()
        if source.is_file():
            folder = Path(temporary) / (source.stem or "zip")
            extract_archive(_zip(source), folder, _belongs_to_results, _LIMITS, _is_left_out)
        try:
            results = find_results(folder)
            work = Import(results, choose(results, configurations, wanted))
            write_model(work, read_sources(work), Path(temporary) / "parts", output)
        except SegwrightError as error:
            if folder.is_relative_to(temporary):  # the user knows the zip, not where it was extracted
                raise ModelError(str(error).replace(str(folder), str(source))) from error
            raise
    return output


def _zip(path: Path) -> Path:
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: neither a results folder of nnU-Net v2 nor a zip archive of one")
    return path


def _belongs_to_results(name: str) -> bool:
    return _IN_ZIP.fullmatch(name) is not None


def _is_left_out(name: str) -> bool:
    """Whether a file of a zip is of no use here: it stays packed, and may be named in any way."""
    of_case = _OF_CASES.fullmatch(name)
    return (of_case is not None and of_case["name"] not in _EVALUATION) or _EXTRA.fullmatch(name) is not None
