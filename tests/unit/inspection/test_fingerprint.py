"""The fingerprint, against plain numpy on the voxels (method 2), and the re-use of records."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.cropping import nonzero_box
from segwright.core.dataset import cases_by_batch, load_dataset
from segwright.core.errors import DamagedFileError, DatasetError, SettingsError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.versions import STAGE_VERSION
from segwright.images.image import Image, LabelMap
from segwright.images.readers import read_image, read_label
from segwright.inspection import batch as batch_module
from segwright.inspection import case as case_module
from segwright.inspection.batch import inspect_batch
from segwright.inspection.batch_number import record_batches, require_batches
from segwright.inspection.dataset import inspect_dataset
from segwright.inspection.fingerprint import build_fingerprint
from segwright.inspection.records import read_batch

from .conftest import RawDataset, grid, random_image, two_labels

V2_KEYS = {
    "spacings", "shapes_after_crop", "foreground_intensity_properties_per_channel",
    "median_relative_size_after_cropping",
}  # fmt: skip


def test_fingerprint_of_known_voxels(raw: RawDataset) -> None:
    image = np.zeros((4, 6, 5), np.int16)
    image[1:3, 1:5, 1:4] = 10 + np.arange(24).reshape(2, 4, 3)
    raw.image("b_0000", image)
    inspect_dataset(raw.folder, raw.output)
    found = read_json(raw.output / "dataset_fingerprint.json")
    assert set(found) == V2_KEYS | {"segwright"}
    assert found["spacings"] == [[3.0, 1.0, 1.5]] * 3
    assert found["shapes_after_crop"] == [[4, 6, 5], [2, 4, 3], [4, 6, 5]]
    assert found["median_relative_size_after_cropping"] == 1.0
    foreground = two_labels() > 0  # equally many voxels in each case: numpy on the pooled voxels
    pooled = np.concatenate([array[foreground] for array in (random_image(0), image, random_image(2))])
    properties = found["foreground_intensity_properties_per_channel"]["0"]
    low, median, high = np.percentile(pooled, (0.5, 50, 99.5), method="averaged_inverted_cdf")
    expected = {
        "mean": pooled.mean(), "median": median, "std": pooled.std(), "min": pooled.min(), "max": pooled.max(),
        "percentile_00_5": low, "percentile_99_5": high,
    }  # fmt: skip
    assert properties.keys() == expected.keys()
    for name, value in expected.items():
        assert properties[name] == pytest.approx(value, rel=1e-9), name
    assert found["segwright"]["cases"] == ["a", "b", "c"] and found["segwright"]["num_cases"] == 3
    assert found["segwright"]["reader"] == "SimpleITKIO"


def test_ignore_label_counts_as_foreground(raw: RawDataset) -> None:
    raw.describe(labels={"background": 0, "organ": 1, "ignore": 2})
    inspect_dataset(raw.folder, raw.output)
    record = read_batch(next((raw.output / "inspection").glob("batch_*.json"))).cases
    assert {r.fingerprint.foreground_voxels for r in record.values() if r.fingerprint} == {12}


def test_equal_to_numpy_on_real_images(shared_data: Path, tmp_path: Path) -> None:
    """Weighted by the definition: repeat every case's voxels to a common length."""
    dataset = load_dataset(shared_data / "hippocampus_small" / "Dataset004_Hippocampus")
    ids = [case.case_id for case in dataset.training][:4]
    inspect_batch(dataset, ids, tmp_path / "batch_0.json", tmp_path)
    found = build_fingerprint([tmp_path / "batch_0.json"], tmp_path)
    cases = []
    for case_id in ids:
        case = dataset.training_case(case_id)
        assert case.label_file is not None
        foreground = read_label(case.label_file, "SimpleITKIO").array_zyx > 0
        cases.append(read_image(case.image_files, "SimpleITKIO").array_czyx[0][foreground].astype(np.float64))
    properties = found["foreground_intensity_properties_per_channel"]["0"]
    means = np.array([case.mean() for case in cases])
    assert properties["mean"] == pytest.approx(means.mean(), rel=1e-12)
    variance = np.mean([case.var() for case in cases]) + means.var()
    assert properties["std"] == pytest.approx(variance**0.5, rel=1e-12)
    length = 400_000  # quantiles of each case on an even grid stand for very many draws
    drawn = np.concatenate([np.sort(case)[np.arange(length) * case.size // length] for case in cases])
    for name, percentage in (("percentile_00_5", 0.5), ("median", 50), ("percentile_99_5", 99.5)):
        assert properties[name] == pytest.approx(np.percentile(drawn, percentage), abs=1.0), name
    assert properties["min"] == min(case.min() for case in cases)


def test_batches_and_workers_change_nothing(raw: RawDataset) -> None:
    one = inspect_dataset(raw.folder, raw.output / "one", batches=1)
    many = inspect_dataset(raw.folder, raw.output / "many", batches=7, workers=2)
    assert one.read_bytes() == many.read_bytes()


def test_unchanged_files_are_not_decoded_again(raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.inspect()
    before = raw.batch_file.read_bytes()
    raw.batch_file.unlink()  # as Snakemake does before it starts a job
    decoded: list[str] = []
    read = case_module.read_channels

    def counting(files: list[Path], reader: str) -> object:
        decoded.extend(path.name for path in files)
        return read(files, reader)

    monkeypatch.setattr(case_module, "read_channels", counting)
    for path in raw.folder.rglob("*.nrrd"):
        os.utime(path)  # touched: the digest decides
    raw.inspect()
    assert decoded == [] and raw.batch_file.read_bytes() == before
    raw.image("b_0000", random_image(77))
    raw.inspect()
    assert decoded == ["b_0000.nrrd"]
    assert len(list((raw.output / "inspection" / "values").glob("b.*.npz"))) == 1  # the old one is gone
    raw.describe(labels={"background": 0, "organ": 1, "tumour": 2, "cyst": 3})
    raw.inspect()
    assert decoded[1:] == ["a_0000.nrrd", "b_0000.nrrd", "c_0000.nrrd"]  # declared labels are part of a record
    decoded.clear()
    monkeypatch.setitem(STAGE_VERSION, "inspection", STAGE_VERSION["inspection"] + 1)
    raw.inspect()
    assert decoded == ["a_0000.nrrd", "b_0000.nrrd", "c_0000.nrrd"]  # so is the version of the code that reads them


def test_a_damaged_side_file_is_made_again_or_refused(raw: RawDataset) -> None:
    raw.inspect()
    before = raw.batch_file.read_bytes()
    side_file = next((raw.output / "inspection" / "values").glob("a.*.npz"))
    side_file.write_bytes(side_file.read_bytes()[:100])
    remedy = f"; delete the folder {raw.batch_file.parent} and run again"  # the batch files in it would be kept
    with pytest.raises(DamagedFileError, match=f"its content is not what .*{remedy}"):
        build_fingerprint([raw.batch_file], raw.batch_file.parent)
    side_file.unlink()
    with pytest.raises(DamagedFileError, match=f"names this file, but it is missing{remedy}"):
        build_fingerprint([raw.batch_file], raw.batch_file.parent)
    raw.inspect()
    assert raw.batch_file.read_bytes() == before
    side_file.write_bytes(side_file.read_bytes()[:100])
    raw.inspect()
    assert raw.batch_file.read_bytes() == before
    assert build_fingerprint([raw.batch_file], raw.batch_file.parent)["segwright"]["num_cases"] == 3


def test_side_files_of_removed_cases_go_and_others_stay(raw: RawDataset) -> None:
    raw.inspect()
    values = raw.output / "inspection" / "values"
    (values / ".part-0123456789ab-z.0123456789ab.npz").write_bytes(b"being written by another job")
    (values / ".part-0123456789ab-b.0123456789ab.npz").write_bytes(b"a killed job was at it")
    for path in ("imagesTr/a_0000.nrrd", "labelsTr/a.nrrd"):
        (raw.folder / path).unlink()
    inspect_batch(load_dataset(raw.folder), ["b"], raw.output / "inspection" / "batch_1.json", values.parent)
    assert sorted(path.name.split(".")[0] for path in values.iterdir()) == ["", "b", "c"]


def _die(*_: object) -> None:
    os._exit(9)  # as the kernel does when memory runs out


def test_a_worker_that_dies_is_explained(raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "inspect_case", _die)
    with pytest.raises(DatasetError, match=r"worker process died.*not finished: a, b, c.*1 worker"):
        inspect_dataset(raw.folder, raw.output, workers=2)


def test_record_of_a_case(raw: RawDataset) -> None:
    raw.inspect()
    record = json.loads(raw.batch_file.read_text())["cases"]["b"]
    assert record["files"] == {"images": ["imagesTr/b_0000.nrrd"], "label": "labelsTr/b.nrrd"}
    assert record["shape"] == [4, 6, 5] and record["channels"] == 1 and record["stored_dtype"] == "int16"
    assert record["label_voxels"] == {"0": 108, "1": 11, "2": 1}
    assert record["fingerprint"]["foreground_voxels"] == 12
    assert record["fingerprint"]["values"]["file"].startswith("b.")
    assert len(record["digest"]) == 64 and len(record["image_digests"]) == 1
    assert str(raw.folder) not in raw.batch_file.read_text()


def test_record_size_of_a_large_dataset(raw: RawDataset) -> None:
    """312 cases a batch (10 000 in 32) stay below 0.5 MB (design, decision 5)."""
    raw.inspect()
    assert raw.batch_file.stat().st_size / 3 * 312 < 500_000


def test_no_foreground_anywhere_is_an_error(raw: RawDataset) -> None:
    for name in "abc":
        raw.label(name, two_labels() * 0)
    with pytest.raises(DatasetError, match="no training case has any foreground"):
        inspect_dataset(raw.folder, raw.output)


def test_missing_cases_and_readers(raw: RawDataset) -> None:
    with pytest.raises(DatasetError, match="no training case zz"):
        inspect_batch(load_dataset(raw.folder), ["zz"], raw.batch_file, raw.output)
    raw.describe(file_ending=".xyz", numTraining=0)
    with pytest.raises(DatasetError, match="xyz"):
        inspect_dataset(raw.folder, raw.output)


def test_number_of_batches_is_fixed_at_first_use(tmp_path: Path) -> None:
    require_batches(tmp_path, 32)
    assert record_batches(tmp_path, 8) == 8
    assert record_batches(tmp_path, 8) == 8
    require_batches(tmp_path, 8)
    for use in (record_batches, require_batches):
        with pytest.raises(SettingsError, match=r"first inspected with 8.*made again.*batches: 8"):
            use(tmp_path, 32)
    write_json(tmp_path / "inspection" / "batches.json", {"batches": "8"})
    with pytest.raises(DamagedFileError, match=r"batches.json: not a record of the number of batches .*; delete it"):
        record_batches(tmp_path, 8)


def test_colour_pictures(shared_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(shared_data / "nuclei2d_rgb" / "Dataset106_NucleiRGB")
    ids = next(iter(cases_by_batch([case.case_id for case in dataset.training], 12).values()))
    inspect_batch(dataset, ids, tmp_path / "batch_0.json", tmp_path)
    batch = read_batch(tmp_path / "batch_0.json")
    assert batch.reader == "NaturalImage2DIO"
    record = batch.cases[ids[0]]
    assert record.channels == 3 and not record.problems and record.geometry is not None
    assert record.geometry.dimension == 2 and record.geometry.spacing_zyx[0] > 900
    assert build_fingerprint([tmp_path / "batch_0.json"], tmp_path)["spacings"][0] == [999.0, 1.0, 1.0]


def sparse_images(seed: int) -> list[Image]:
    """Images of one and of two channels, most of them with two voxels; seed 0: none has any."""
    rng = np.random.default_rng(seed)
    arrays = [np.zeros((channels, 5, 6, 7), np.float32) for channels in (1, 2, 1)]
    for array_czyx in arrays:
        if seed and rng.random() < 0.7:
            for _ in range(2):
                array_czyx[tuple(rng.integers(0, array_czyx.shape))] = rng.normal()
    return [Image(array_czyx, grid((5, 6, 7)), "float32") for array_czyx in arrays]


@pytest.mark.parametrize("seed", range(12))
def test_the_box_of_all_channels_is_that_of_the_stacked_image(seed: int) -> None:
    images = sparse_images(seed)
    stacked_czyx = np.concatenate([image.array_czyx for image in images])
    assert case_module._common_box(images) == nonzero_box(stacked_czyx)


def test_channels_are_cropped_and_counted_without_stacking_them(raw: RawDataset) -> None:
    rng = np.random.default_rng(0)
    images = [Image(rng.random((1, 64, 64, 64), np.float32), grid((64, 64, 64)), "float32") for _ in range(6)]
    label_zyx = np.zeros((64, 64, 64), np.uint8)
    label_zyx[10:14, 20:30, 30:40] = 1
    label = LabelMap(label_zyx, images[0].geometry, "uint8")
    case = load_dataset(raw.folder).training[0]
    tracemalloc.start()
    fingerprint, counts = case_module._fingerprint(images, label, case, case_module._Problems("a", raw.folder))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fingerprint.foreground_voxels == 400 and fingerprint.shape_after_crop == (64, 64, 64)
    for image, count in zip(images, counts, strict=True):
        assert count.summary.mean == pytest.approx(image.array_czyx[0][label_zyx > 0].mean(dtype=float), rel=1e-6)
    assert peak_bytes < sum(image.array_czyx.nbytes for image in images) / 2


def test_each_side_file_is_compared_once_and_read_once(raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2", "2": "FLAIR"})
    for seed, name in enumerate("abc"):
        for channel in (1, 2):
            raw.image(f"{name}_000{channel}", random_image(10 * channel + seed))
    raw.inspect()
    compared, members = [], []
    real_open = zipfile.ZipFile.open

    def counting_digest(path: Path) -> str:
        compared.append(path.name[0])
        return file_digest(path)

    def noting_open(archive: zipfile.ZipFile, name: Any, *arguments: Any, **options: Any) -> Any:
        members.append((Path(str(archive.filename)).name[0], str(name)))
        return real_open(archive, name, *arguments, **options)

    monkeypatch.setattr("segwright.core.recorded.file_digest", counting_digest)
    monkeypatch.setattr(zipfile.ZipFile, "open", noting_open)
    found = build_fingerprint([raw.batch_file], raw.batch_file.parent)
    assert compared == ["a", "b", "c"]
    assert set(members) == {(n, f"{part}_{c}.npy") for n in "abc" for part in ("values", "counts") for c in range(3)}
    foreground = two_labels() > 0
    for channel in range(3):
        pooled = np.concatenate([random_image(10 * channel + seed)[foreground] for seed in range(3)])
        properties = found["foreground_intensity_properties_per_channel"][str(channel)]
        assert properties["mean"] == pytest.approx(pooled.mean(), rel=1e-9)
