"""Medical Segmentation Decathlon tasks to nnU-Net v2's raw layout (method 1.4).

A task keeps all channels of a case in one 4-D file and names no channel; v2 wants one 3-D file a channel.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from segwright.conversion.layout import (
    ENDING,
    checked_name,
    dataset_name,
    description_v2,
    new_folder,
    read_task,
    require_free_id,
)
from segwright.core.errors import DatasetError
from segwright.core.files import write_json
from segwright.core.progress import progress
from segwright.images.itk import read_itk_header
from segwright.images.readers import read_native, write_image

READER = "SimpleITKIO"


def convert_msd(source: Path, output: Path, dataset_id: int | None = None, name: str | None = None) -> Path:
    """Convert the task folder ``source`` (``Task04_Hippocampus``) into ``output/Dataset004_Hippocampus``.

    4-D images are split into channels, in their stored type; 3-D images and labels are copied as they are; files whose
    names start with ``.`` or ``_`` are left out. ``dataset_id`` replaces the task's number, ``name`` the whole name.
    Returns the new folder.

    Raises:
        DatasetError: no task folder, an id or folder that is taken, a case without its image or label, or an
            unreadable file. Nothing is left behind then.
    """
    source, output = Path(source), Path(output)
    facts = read_task(source, "Decathlon")
    name = dataset_name(source.resolve().name, dataset_id) if name is None else checked_name(name)
    require_free_id(output, name)
    parts = {part: _files(source / part) for part in ("imagesTr", "labelsTr", "imagesTs")}
    channels = len(facts["modality"])
    _require_pairs(source, parts["imagesTr"], parts["labelsTr"])
    with (
        new_folder(output / name) as folder,
        progress(f"convert {name}", sum(len(files) for files in parts.values())) as bar,
    ):
        for part, files in parts.items():
            if files or part != "imagesTs":
                (folder / part).mkdir()
            for path in files:
                if part == "labelsTr":
                    shutil.copyfile(path, folder / part / path.name)
                else:
                    _convert_image(path, folder / part, channels)
                bar.advance(path.name)
        write_json(folder / "dataset.json", description_v2(facts, source, len(parts["imagesTr"])), sort_keys=False)
    return output / name


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.endswith(ENDING) and not p.name.startswith((".", "_")))


def _require_pairs(source: Path, images: list[Path], labels: list[Path]) -> None:
    """Every training image needs its label of the same name and the other way round."""
    if not images:
        raise DatasetError(f"{source / 'imagesTr'}: holds no {ENDING} image; is this a Decathlon task folder?")
    alone = {path.name for path in images} ^ {path.name for path in labels}
    if alone:
        raise DatasetError(
            f"{source}: image without label or label without image: {', '.join(sorted(alone))};"
            " add what is missing or remove the other"
        )


def _convert_image(path: Path, folder: Path, channels: int) -> None:
    """Copy a 3-D file under its new name, or split a 4-D file into its channels."""
    case = path.name[: -len(ENDING)]
    stored = read_native(path, READER)
    if len(stored.array_czyx) != channels:
        raise DatasetError(
            f"{path}: holds {len(stored.array_czyx)} channels but `modality` names {channels}; correct one of them"
        )
    if channels == 1 and len(read_itk_header(path).size_xyz) == 3:
        # read only to be sure that it can be; copied, so that no byte of its header changes
        shutil.copyfile(path, folder / f"{case}_0000{ENDING}")
        return
    for index, channel_zyx in enumerate(stored.array_czyx):
        write_image(folder / f"{case}_{index:04d}{ENDING}", channel_zyx, stored.geometry, READER)
