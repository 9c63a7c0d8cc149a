"""Phantom datasets: made-up patients with known anatomy, for the demo and for tests.

Every case has its own shape, spacing, position, contrast, smooth intensity bias and noise. Intensities of neighbouring
structures overlap, so that a threshold does not solve the task, but a small U-Net learns it in a few hundred steps.
The same seed gives the same bytes. Lengths are millimetres (pixels in the picture preset), array axes z, y, x.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from segwright.conversion.layout import new_folder
from segwright.core.errors import SettingsError
from segwright.core.files import write_json
from segwright.core.geometry import Geometry
from segwright.core.progress import progress
from segwright.images.readers import choose_reader, write_image, write_label

Floats = npt.NDArray[np.float64]

_PLAIN_LABELS: Mapping[str, Any] = {"background": 0, "organ": 1, "lesion": 2}
_TUMOUR_LABELS: Mapping[str, Any] = {
    "background": 0, "whole_tumour": [1, 2, 3], "tumour_core": [2, 3], "enhancing_tumour": 3,
}  # fmt: skip
_SUPINE, _SCANNER = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)


@dataclass(frozen=True)
class Preset:
    """One kind of phantom.

    Attributes:
        shape_zyx, spacing_mm: of the average case; cases vary by 10 %.
        scene: what is painted.
        stored: numpy type of the image files.
        ignore: whether part of every training label is not annotated.
    """

    shape_zyx: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    labels: Mapping[str, Any]
    scene: Literal["organ", "tumour", "ct"] = "organ"
    channels: tuple[str, ...] = ("MRI",)
    stored: str = "int16"
    ending: str = ".nii.gz"
    ignore: bool = False


_TUMOUR: dict[str, Any] = {"scene": "tumour", "channels": ("T1", "T2"), "labels": _TUMOUR_LABELS}
_ORGAN: dict[str, Any] = {"labels": _PLAIN_LABELS}
PRESETS: Mapping[str, Preset] = {
    "plain": Preset((32, 40, 36), (1.0, 1.0, 1.0), **_ORGAN),
    "regions": Preset((32, 40, 36), (1.0, 1.0, 1.0), **_TUMOUR),
    "ignore": Preset((32, 40, 36), (1.0, 1.0, 1.0), ignore=True, **_ORGAN),
    "regions_ignore": Preset((32, 40, 36), (1.0, 1.0, 1.0), ignore=True, **_TUMOUR),
    "ct": Preset((32, 40, 44), (2.5, 2.0, 2.0), scene="ct", channels=("CT",), **_ORGAN),
    "anisotropic": Preset((12, 48, 44), (4.5, 1.0, 1.0), stored="float32", **_ORGAN),
    "2d": Preset((1, 96, 112), (1.0, 1.0, 1.0), channels=("microscope",), stored="uint8", ending=".png", **_ORGAN),
    "large": Preset((72, 80, 76), (1.0, 1.0, 1.0), **_ORGAN),
}


def make_phantom(preset: str, cases: int, seed: int, output: Path, *, test_cases: int = 2) -> Path:
    """Write a dataset in nnU-Net v2's raw layout; ``output`` is the dataset folder itself.

    ``imagesTs`` holds the test cases and ``labelsTs`` their complete labels, which training never reads.

    Raises:
        SettingsError: an unknown preset, or no case.
        DatasetError: ``output`` exists already.
    """
    if preset not in PRESETS:
        raise SettingsError(f"there is no phantom `{preset}`; known: {', '.join(PRESETS)}")
    if cases < 1 or test_cases < 0:
        raise SettingsError(f"a phantom needs at least one training case, not {cases} (and {test_cases} test cases)")
    kind, output = PRESETS[preset], Path(output)
    with new_folder(output) as folder, progress("phantom", cases + test_cases) as bar:
        write_json(folder / "dataset.json", _description(preset, cases, seed), sort_keys=False)
        for index in range(cases + test_cases):
            test = index >= cases
            stream = (seed, zlib.crc32(preset.encode()), int(test), index - cases if test else index)
            _write_case(folder, kind, f"phantom_{index:03d}", np.random.default_rng(stream), test, stream[-1])
            bar.advance(f"phantom_{index:03d}")
    return output


def _description(preset: str, cases: int, seed: int) -> dict[str, Any]:
    """dataset.json (method 1.2)."""
    kind = PRESETS[preset]
    labels = dict(kind.labels)
    if kind.ignore:
        labels["ignore"] = 4 if kind.scene == "tumour" else 3
    facts: dict[str, Any] = {
        "name": f"phantom {preset}",
        "description": f"made-up images, segwright phantom `{preset}`, seed {seed}",
        "licence": "CC0 1.0",
        "channel_names": {str(index): name for index, name in enumerate(kind.channels)},
        "labels": labels,
        "numTraining": cases,
        "file_ending": kind.ending,
    }
    if kind.scene == "tumour":
        facts["regions_class_order"] = [1, 2, 3]
    return facts


def _write_case(folder: Path, kind: Preset, case_id: str, rng: np.random.Generator, test: bool, number: int) -> None:
    scene = _Scene.draw(kind, rng)
    painters = {"organ": _paint_organ, "tumour": _paint_tumour, "ct": _paint_ct}
    channels, label_zyx = painters[kind.scene](scene, number)
    if kind.ignore and not test:
        label_zyx = _forget_slices(label_zyx, 4 if kind.scene == "tumour" else 3, rng)
    reader = choose_reader(kind.ending)
    part = "Ts" if test else "Tr"
    for index, channel_zyx in enumerate(channels):
        path = folder / f"images{part}" / f"{case_id}_{index:04d}{kind.ending}"
        write_image(path, _stored(channel_zyx, kind.stored), scene.geometry, reader)
    write_label(folder / f"labels{part}" / f"{case_id}{kind.ending}", label_zyx, scene.geometry, reader)


@dataclass(frozen=True)
class _Scene:
    """The grid of one case and its random numbers."""

    geometry: Geometry
    position: Floats  # (3, z, y, x): millimetres from the centre of the volume
    half: Floats  # half the extent of the volume in millimetres
    rng: np.random.Generator

    @staticmethod
    def draw(kind: Preset, rng: np.random.Generator) -> _Scene:
        flat = kind.shape_zyx[0] == 1
        shape = [1 if n == 1 else round(n * rng.uniform(0.9, 1.1)) for n in kind.shape_zyx]
        spacing = [1.0 if flat else round(edge * rng.uniform(0.92, 1.08), 4) for edge in kind.spacing_mm]
        origin = np.round(rng.uniform(-100, 100, 3), 2)
        direction = _SCANNER if rng.random() < 0.5 else _SUPINE
        axes = [(np.arange(n) - (n - 1) / 2) * edge for n, edge in zip(shape, spacing, strict=True)]
        position = np.stack(np.meshgrid(*axes, indexing="ij"))
        geometry = Geometry(
            shape_zyx=(shape[0], shape[1], shape[2]),
            spacing_zyx=(999.0 if flat else spacing[0], spacing[1], spacing[2]),
            origin_xyz=(0.0, 0.0) if flat else tuple(float(value) for value in origin),
            direction_xyz=(1.0, 0.0, 0.0, 1.0) if flat else direction,
            dimension=2 if flat else 3,
        )
        return _Scene(geometry, position, np.array(shape) * np.array(spacing) / 2, rng)

    @property
    def edges_mm(self) -> list[float]:
        flat = self.geometry.dimension == 2
        return [1.0 if flat else self.geometry.spacing_zyx[0], *self.geometry.spacing_zyx[1:]]

    def field(self, length_mm: float) -> Floats:
        """Smooth random field, mean 0 and standard deviation about 1, of this correlation length."""
        noise = self.rng.normal(size=self.position.shape[1:])
        smooth = gaussian_filter(noise, [length_mm / edge for edge in self.edges_mm], mode="wrap")
        return (smooth - smooth.mean()) / max(float(smooth.std()), 1e-9)

    def blob(self, centre_mm: Floats, radii_mm: Floats, wobble: float) -> Floats:
        """Distance from the centre in radii of a turned, dented ellipsoid: its inside is below 1."""
        turn, _ = np.linalg.qr(self.rng.normal(size=(3, 3)))
        if self.geometry.dimension == 2:
            angle = self.rng.uniform(0, np.pi)
            turn = np.eye(3)
            turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        away = np.tensordot(turn.T, self.position - centre_mm[:, None, None, None], axes=1)
        distance = np.sqrt(((away / radii_mm[:, None, None, None]) ** 2).sum(axis=0))
        return distance * (1 + wobble * self.field(float(radii_mm.min()) * 0.5))

    def place(self, spread: float) -> Floats:
        """A random point, at most this share of the half extent away from the centre."""
        centre = self.rng.uniform(-spread, spread, 3) * self.half
        return centre * (self.half > 1)  # a picture has no depth

    def size(self, share: float) -> Floats:
        """Random radii around this share of the smallest extent (a picture's depth does not count)."""
        smallest = float(self.half[self.half > 1].min())
        return share * smallest * self.rng.uniform(0.8, 1.25, 3)


def _paint_organ(scene: _Scene, number: int) -> tuple[list[Floats], npt.NDArray[np.uint8]]:
    """An organ with a lesion in it, in tissue; grey values of an MRI or a microscope."""
    del number
    label = _organ_and_lesion(scene)
    contrast = scene.rng.uniform(0.85, 1.15)
    tissue = 90 + 10 * scene.field(4.0)
    image = tissue + contrast * (55 * (label == 1) + 105 * (label == 2))
    return [_as_mri(scene, image, noise=16.0)], label


def _paint_ct(scene: _Scene, number: int) -> tuple[list[Floats], npt.NDArray[np.uint8]]:
    """A body in air with fat, bone, an organ and a lesion; Hounsfield units."""
    del number
    y, x = scene.position[1] / scene.half[1], scene.position[2] / scene.half[2]
    body_radius = np.hypot(y / scene.rng.uniform(0.84, 0.94), x / scene.rng.uniform(0.84, 0.94))
    label = _organ_and_lesion(scene)
    label[body_radius >= 0.85] = 0
    image = np.full(label.shape, -1000.0)
    image[body_radius < 1] = -95.0  # fat under the skin
    image[body_radius < 0.88] = scene.rng.uniform(30, 50)
    image[np.hypot(y - 0.6, x) < 0.14] = scene.rng.uniform(350, 600)  # spine
    image[label == 1] = scene.rng.uniform(100, 130)
    image[label == 2] = scene.rng.uniform(-20, -5)  # a cyst
    soft = gaussian_filter(image, 0.5) + 5 * scene.field(6.0) * (body_radius < 1)
    noisy = soft + scene.rng.normal(0, 18.0, label.shape)
    return [np.clip(noisy, -1024, 3071)], label


def _paint_tumour(scene: _Scene, number: int) -> tuple[list[Floats], npt.NDArray[np.uint8]]:
    """A brain in black (zero) background with a tumour: 1 oedema, 2 core, 3 enhancing part; T1 and T2.

    Every fifth case has no enhancing part, as happens in patients.
    """
    brain = scene.blob(scene.place(0.05), scene.half * scene.rng.uniform(0.78, 0.9, 3), 0.03) < 1
    tumour = scene.blob(scene.place(0.25), scene.size(0.56), 0.1)
    inner = tumour * (1 + 0.06 * scene.field(2.5))
    label = np.zeros(brain.shape, np.uint8)
    label[(tumour < 1) & brain] = 1
    label[(inner < 0.76) & brain] = 2
    if number % 5 != 4:
        label[(inner < 0.5) & brain] = 3
    tissue = 100 + 8 * scene.field(5.0)
    contrast = scene.rng.uniform(0.85, 1.15, 2)
    t1 = tissue + contrast[0] * np.choose(label, [0, -8, -42, 60])
    t2 = tissue + contrast[1] * np.choose(label, [0, 50, 65, 20])
    return [np.maximum(_as_mri(scene, image, noise=12.0), 1.0) * brain for image in (t1, t2)], label


def _organ_and_lesion(scene: _Scene) -> npt.NDArray[np.uint8]:
    """Label 1: a dented ellipsoid; label 2: a smaller blob that starts inside it and may stick out."""
    centre = scene.place(0.2)
    organ = scene.blob(centre, scene.size(0.52), 0.08) < 1
    away = scene.rng.normal(size=3) * (scene.half > 1)
    lesion_centre = centre + away / np.linalg.norm(away) * scene.size(0.3)
    lesion = scene.blob(lesion_centre, np.maximum(scene.size(0.26), 1.5 * np.array(scene.edges_mm)), 0.06) < 1
    label = organ.astype(np.uint8)
    label[lesion] = 2
    return label


def _as_mri(scene: _Scene, image: Floats, noise: float) -> Floats:
    """Blurred edges, smooth coil sensitivity, Rician noise, and the case's own gain."""
    blurred = gaussian_filter(image, 0.5 if scene.geometry.dimension == 3 else [0, 0.7, 0.7])
    biased = blurred * np.exp(0.12 * scene.field(float(scene.half[1:].min()) * 0.8))
    shape = biased.shape
    rician = np.hypot(biased + scene.rng.normal(0, noise, shape), scene.rng.normal(0, noise, shape))
    gain = scene.rng.uniform(0.85, 1.15)
    return rician * gain * (1 if scene.geometry.dimension == 2 else 3)


def _forget_slices(label_zyx: npt.NDArray[np.uint8], ignore: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """About half the slices, in runs of two, and one column were never annotated."""
    forgotten = label_zyx.copy()
    slices = (np.arange(len(label_zyx)) + rng.integers(4)) // 2 % 2 == 0
    forgotten[slices] = ignore
    forgotten[:, : rng.integers(2, 6), :] = ignore
    return forgotten


def _stored(channel_zyx: Floats, stored: str) -> npt.NDArray[Any]:
    if stored == "float32":
        return channel_zyx.astype(np.float32)
    limits = np.iinfo(stored)
    return np.clip(np.rint(channel_zyx), limits.min, limits.max).astype(stored)
