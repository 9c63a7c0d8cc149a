"""nnU-Net v1's raw layout to v2's (method 1.4): files keep their names, dataset.json changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from segwright.conversion.layout import (
    ENDING,
    checked_name,
    dataset_name,
    description_v2,
    new_folder,
    read_task,
    require_free_id,
)
from segwright.core.dataset import find_cases
from segwright.core.errors import DatasetError
from segwright.core.files import write_json
from segwright.core.progress import progress

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")
_DROPPED = ("numTest", "tensorImageSize")


def convert_v1(source: Path, output: Path, name: str | None = None) -> Path:
    """Convert the v1 task folder ``source`` (``Task004_Hippocampus``) into ``output/Dataset004_Hippocampus``.

    ``name`` chooses another name for the new folder. All images and labels are copied unchanged. Returns the folder.

    Raises:
        DatasetError: no v1 task folder, a name or id that is taken, or training images without labels. Nothing is
            left behind then.
    """
    source, output = Path(source), Path(output)
    description = _description(source)
    name = dataset_name(source.resolve().name, None) if name is None else checked_name(name)
    require_free_id(output, name)
    copies = [
        (part, path)
        for part in _FOLDERS
        if (source / part).is_dir()
        for path in sorted((source / part).iterdir())
        if path.name.endswith(ENDING) and not path.name.startswith(".")
    ]
    with new_folder(output / name) as folder, progress(f"convert {name}", len(copies)) as bar:
        for part, path in copies:
            (folder / part).mkdir(exist_ok=True)
            shutil.copyfile(path, folder / part / path.name)
            bar.advance(path.name)
        write_json(folder / "dataset.json", description, sort_keys=False)
    return output / name


def _description(source: Path) -> dict[str, Any]:
    """v2's dataset.json for a v1 task whose cases were counted and found complete."""
    facts = read_task(source, "v1")
    for part in ("imagesTr", "labelsTr"):
        if not (source / part).is_dir():
            raise DatasetError(f"{source}: the folder {part} is missing; this is no v1 task folder")
    cases = find_cases(source / "imagesTr", ENDING, source / "labelsTr")
    if not cases:
        raise DatasetError(
            f"{source / 'imagesTr'}: holds no image named like case_0000{ENDING};"
            " 4-D files without a channel number are a Decathlon task: convert it as such"
        )
    without = [case.case_id for case in cases if case.label_file is None]
    if without:
        raise DatasetError(f"{source / 'labelsTr'}: no label for {', '.join(without)}; add it or remove the image")
    wrong = [case.case_id for case in cases if len(case.image_files) != len(facts["modality"])]
    if wrong:
        raise DatasetError(
            f"{source / 'imagesTr'}: {', '.join(wrong)}: the number of channel files is not that of `modality`,"
            f" {len(facts['modality'])}; add the missing files or correct dataset.json"
        )
    return description_v2(facts, source, len(cases), _DROPPED)
