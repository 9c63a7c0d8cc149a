"""Image files: headers field by field, compressed bodies, and plain bytes."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from segwright.core.dataset import Case
from segwright.images.readers import choose_reader, read_channels, read_header, read_image, read_label, read_native
from segwright.inspection.case import Expectations, inspect_case
from tests.fuzz.image_changes import (
    Mutate,
    mutated_gzip,
    mutated_nifti,
    mutated_png,
    mutated_text_header,
    mutated_tiff,
)
from tests.fuzz.image_files import bmp_files, itk_file, itk_files, labels, nifti_files, png_files, tiff_files
from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.target import Sample, Sampler, Target

_READERS_OF = {
    ".nii": ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"),
    ".nii.gz": ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"),
    ".png": ("NaturalImage2DIO",), ".bmp": ("NaturalImage2DIO",), ".tif": ("NaturalImage2DIO", "Tiff3DIO"),
}  # fmt: skip
_WAYS: Mapping[str, Callable[[Path, str], object]] = {
    "header": read_header,
    "image": lambda path, reader: read_channels([path], reader),
    "label": read_label,
    "native": read_native,
    "choose": lambda path, reader: choose_reader("".join(path.suffixes), path),
}


def _image_sampler(ending: str, files: Callable[[], list[bytes]], mutate: Mutate) -> Sampler:
    contents = files()
    for content in contents:  # what is changed must be right before
        _check_readable(content, ending)

    def draw(rng: random.Random) -> Sample:
        way, reader = rng.choice(tuple(_WAYS)), rng.choice(_READERS_OF.get(ending, ("SimpleITKIO",)))
        name = f"case_1_0000{ending}"
        made = {name: mutate(rng, rng.choice(contents), contents)}
        named = [name]
        if reader == "Tiff3DIO" and rng.random() < 0.5:
            named.append("case_1.json")
            made[named[-1]] = mutated_json(rng, {"spacing": [2.0, 1.0, 1.0]})
        return Sample(made, lambda folder: _WAYS[way](folder / name, reader), tuple(named))

    return draw


def _check_readable(content: bytes, ending: str) -> None:
    packed = gzip.compress(content) if ending == ".nii.gz" else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"case_1_0000{ending}"
        path.write_bytes(packed)
        read_native(path, choose_reader(ending, path))


def _case_sampler() -> Sampler:
    """A whole case, one file of which is changed: inspection reports, and never raises."""
    images = nifti_files()[:2]
    label_maps = [itk_file(labels(), "a.nii"), itk_file(labels().astype(np.float32), "a.nii")]

    def draw(rng: random.Random) -> Sample:
        image, label = rng.choice(images), rng.choice(label_maps)
        if rng.random() < 0.5:
            image = mutated_nifti(rng, image, images)
        else:
            label = mutated_nifti(rng, label, label_maps)
        names = ("imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz")
        packed = {name: gzip.compress(data, 1, mtime=0) for name, data in zip(names, (image, label), strict=True)}

        def use(folder: Path) -> None:
            case = Case("c", (folder / names[0],), folder / names[1])
            expected = Expectations(folder, "SimpleITKIO", ("MRI",), (0, 1, 2), (1, 2), ".nii.gz")
            record = inspect_case(case, expected, folder)
            assert all(problem.message and problem.remedy for problem in record.problems)
            json.dumps(record.to_json())

        return Sample(packed, use, names)

    return draw


def _channels_sampler() -> Sampler:
    """Two channel files of one case, one of them changed."""
    contents = nifti_files()[:2]

    def draw(rng: random.Random) -> Sample:
        names = ("c_0000.nii", "c_0001.nii")
        files = [contents[0], mutated_nifti(rng, contents[0], contents)]
        rng.shuffle(files)
        made = dict(zip(names, files, strict=True))
        return Sample(made, lambda folder: read_image([folder / name for name in names], "SimpleITKIO"), names)

    return draw


def image_targets() -> list[Target]:
    def target(name: str, ending: str, files: Callable[[], list[bytes]], mutate: Mutate, share: int) -> Target:
        return Target(name, lambda: _image_sampler(ending, files, mutate), share)

    return [
        target("nifti", ".nii", nifti_files, mutated_nifti, 12_000),
        target("nifti_gz", ".nii.gz", nifti_files, partial(mutated_gzip, mutated_nifti), 8_000),
        target("nrrd", ".nrrd", lambda: itk_files(".nrrd"), mutated_text_header, 9_000),
        target("mha", ".mha", lambda: itk_files(".mha"), mutated_text_header, 9_000),
        target("gipl", ".gipl", lambda: itk_files(".gipl"), mutated, 3_000),
        target("png", ".png", png_files, mutated_png, 8_000),
        target("bmp", ".bmp", bmp_files, mutated, 3_000),
        target("tiff", ".tif", tiff_files, mutated_tiff, 8_000),
        Target("case", _case_sampler, 3_000),
        Target("channels", _channels_sampler, 1_000),
    ]
