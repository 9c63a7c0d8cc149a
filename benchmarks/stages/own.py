"""Segwright's side of the functions that are measured. Each maker gives a function of no arguments."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def resample(
    file: str, shape: Sequence[int], current: Sequence[float], target: Sequence[float], is_label: bool
) -> Callable[[], np.ndarray]:
    from segwright.core.plans import RESAMPLE_IMAGE, RESAMPLE_LABEL
    from segwright.preprocessing.resampling import resample_image, resample_label

    array = np.load(file)
    if is_label:
        return lambda: resample_label(array, shape, current, target, RESAMPLE_LABEL)
    return lambda: resample_image(array[None], shape, current, target, RESAMPLE_IMAGE)[0]


def preprocess(plans: str, dataset: str, configuration: str, case: str, output: str) -> Callable[[], object]:
    """Raw files to a stored case; afterwards gives a function that reads it for the comparison."""
    from segwright.core.dataset import load_dataset
    from segwright.core.files import read_json
    from segwright.core.plans import Plans
    from segwright.core.slices import preprocess_slice
    from segwright.images.readers import read_image, read_label
    from segwright.preprocessing.axes import use_one_blas_thread
    from segwright.preprocessing.case import preprocess_case
    from segwright.preprocessing.store import StoredCase, write_stored_case

    raw = load_dataset(Path(dataset))
    plan = preprocess_slice(Plans.from_json(read_json(Path(plans))), configuration, raw.labels, raw.channel_names)
    files, path = raw.training_case(case), Path(output) / f"{case}.safetensors"
    label_file = files.label_file
    assert label_file is not None
    use_one_blas_thread()

    def result() -> dict[str, np.ndarray]:
        stored = StoredCase(path)
        assert stored.label_zyx is not None
        return {"image": stored.image_czyx, "label": stored.label_zyx}

    def run() -> Callable[[], dict[str, np.ndarray]]:
        _forget_headers()
        image, label = read_image(files.image_files, plan.reader), read_label(label_file, plan.reader)
        write_stored_case(path, preprocess_case(image, label, plan))
        return result

    return run


def load_and_augment(index: str, plans: str, dataset: str, configuration: str, batches: int) -> Callable[[], int]:
    """Batches as a training process makes them for itself."""
    from segwright.core.dataset import load_dataset
    from segwright.core.files import read_json
    from segwright.core.plans import Plans
    from segwright.core.settings import TrainingSettings
    from segwright.core.slices import train_slice
    from segwright.preprocessing.store import PreprocessedStore
    from segwright.training.loader import BatchSource

    labels = load_dataset(Path(dataset)).labels
    plan = train_slice(Plans.from_json(read_json(Path(plans))), configuration, labels)
    source = BatchSource(
        index=Path(index), case_ids=PreprocessedStore(index).case_ids, plan=plan,
        settings=TrainingSettings().resolved(), training=True,
    )  # fmt: skip
    epochs = itertools.count()

    def run() -> int:
        epoch = next(epochs)
        return sum(len(source.make(epoch, step).images) for step in range(batches))

    return run


def export(logits: str, plans: str, dataset_json: str, shape: Sequence[int]) -> Callable[[], np.ndarray]:
    """Network output to a label map on the raw grid of 1 mm voxels; a small one is made before."""
    from segwright.core.files import read_json
    from segwright.core.geometry import Geometry
    from segwright.core.labels import Labels
    from segwright.core.plans import Plans
    from segwright.core.slices import predict_slice, preprocess_slice
    from segwright.inference.export import labels_from_logits
    from segwright.preprocessing.case import CaseProperties

    facts = read_json(Path(dataset_json))
    read = Plans.from_json(read_json(Path(plans)))
    preprocess_plan = preprocess_slice(read, "3d_fullres", Labels.from_json(facts), ("image",))
    plan = predict_slice(read, "3d_fullres", preprocess_plan)
    scores = np.load(logits).astype(np.float32)
    spacing = tuple(float(edge) for edge in plan.preprocess.spacing_mm)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def to_labels(stored: np.ndarray, full: tuple[int, ...]) -> np.ndarray:
        box = tuple((0, edge) for edge in full)
        properties = CaseProperties(
            geometry=Geometry(full, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), identity),  # type: ignore[arg-type]
            shape_before_cropping=full, bbox=box, shape_after_cropping=full,  # type: ignore[arg-type]
            shape=stored.shape[1:], spacing_before_mm=(1.0, 1.0, 1.0), spacing_mm=spacing,  # type: ignore[arg-type]
        )  # fmt: skip
        return labels_from_logits(stored, properties, plan)

    to_labels(np.ascontiguousarray(scores[:, :8, :8, :8]), (20, 20, 20))
    return lambda: to_labels(scores, tuple(shape))


def metrics(reference: str, prediction: str, dataset_json: str, reader: str) -> Callable[[], object]:
    """Read a pair of label maps and count."""
    from segwright.core.files import read_json
    from segwright.core.labels import Labels
    from segwright.evaluation.summary import Pair, evaluate_pairs

    labels = Labels.from_json(read_json(Path(dataset_json)))
    pair = Pair("case", Path(reference), Path(prediction), "reference", "prediction")

    def run() -> object:
        _forget_headers()
        (result,) = evaluate_pairs([pair], labels, reader)
        return [[counts.tp, counts.fp, counts.fn, counts.tn] for counts in result.counts.values()]

    return run


def postprocessing(manifest: str, dataset: str, reader: str, output: str) -> Callable[[], object]:
    from segwright.core.dataset import load_dataset
    from segwright.selection.postprocessing import determine_postprocessing

    raw = load_dataset(Path(dataset))

    def run() -> object:
        _forget_headers()
        found = determine_postprocessing([Path(manifest)], raw, reader, "full", Path(output))
        return [list(rule.values) for rule in found.rules]

    return run


def ensemble(members: Sequence[str], dataset: str, reader: str, output: str) -> Callable[[], object]:
    """Average two configurations' out-of-fold probabilities and score the label maps."""
    from segwright.core.dataset import load_dataset
    from segwright.selection.ensembles import evaluate_ensemble

    raw = load_dataset(Path(dataset))

    def run() -> object:
        _forget_headers()
        shutil.rmtree(output, ignore_errors=True)
        summary = evaluate_ensemble([[Path(member)] for member in members], raw, reader, Path(output))
        return {key: round(value, 9) for key, value in sorted(summary.foreground_mean.items())}

    return run


def _forget_headers() -> None:
    """The headers of files a process has read are remembered; each call is to read them as a new process does."""
    from segwright.images import nifti

    nifti._itk_header.cache_clear()
