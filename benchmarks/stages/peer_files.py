"""nnU-Net v2's side of the functions that are measured, on files. Each maker gives a function of no arguments."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def preprocess(plans: str, dataset: str, configuration: str, case: str, output: str) -> Callable[[], object]:
    """Raw files to a stored case; afterwards gives a function that reads it for the comparison."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    manager, facts = _manager(plans), _json(Path(dataset) / "dataset.json")
    settings = manager.get_configuration(configuration)
    preprocessor = settings.preprocessor_class(verbose=False)
    ending = facts["file_ending"]
    image, label = f"{dataset}/imagesTr/{case}_0000{ending}", f"{dataset}/labelsTr/{case}{ending}"

    def result() -> dict[str, np.ndarray]:
        data, seg, _, _ = nnUNetDatasetBlosc2(output, [case]).load_case(case)
        return {"image": np.asarray(data[:]), "label": np.asarray(seg[:])[0]}

    def run() -> Callable[[], dict[str, np.ndarray]]:
        for old in Path(output).iterdir():
            old.unlink()  # it does not write over what is there, its command empties the folder first
        preprocessor.run_case_save(f"{output}/{case}", [image], label, manager, settings, facts)
        return result

    return run


def load_and_augment(plans: str, dataset_json: str, configuration: str, batches: int) -> Callable[[], int]:
    """The trainer's own training loader, without worker processes (nnUNet_n_proc_DA=0)."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    arguments = ({**_json(Path(plans)), "continue_training": False}, configuration, "all", _json(Path(dataset_json)))
    trainer = nnUNetTrainer(*arguments, torch.device("cpu"))
    trainer._set_batch_size_and_oversample()
    loader, _ = trainer.get_dataloaders()
    return lambda: sum(len(next(loader)["data"]) for _ in range(batches))


def export(logits: str, plans: str, dataset_json: str, shape: Sequence[int]) -> Callable[[], np.ndarray]:
    """Network output to a label map on the raw grid of 1 mm voxels; float16, as the peer's prediction gives it.

    A small one is made before.
    """
    import torch
    from nnunetv2.inference import export_prediction

    convert = export_prediction.convert_predicted_logits_to_segmentation_with_correct_shape
    manager = _manager(plans)
    scores = torch.from_numpy(np.load(logits))
    labels = manager.get_label_manager(_json(Path(dataset_json)))
    settings = manager.get_configuration("3d_fullres")

    def to_labels(stored: Any, full: Sequence[int]) -> np.ndarray:
        properties = {
            "spacing": [1.0, 1.0, 1.0],
            "shape_before_cropping": tuple(full),
            "shape_after_cropping_and_before_resampling": tuple(full),
            "bbox_used_for_cropping": [[0, edge] for edge in full],
        }
        return np.asarray(convert(stored, manager, settings, labels, properties, False, 1))

    to_labels(scores[:, :8, :8, :8].contiguous(), (20, 20, 20))
    return lambda: to_labels(scores, shape)


def metrics(reference: str, prediction: str, dataset_json: str, reader: str) -> Callable[[], object]:
    """Read a pair of label maps and count."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    values = [value for value in _json(Path(dataset_json))["labels"].values() if value]

    def run() -> object:
        found = compute_metrics(reference, prediction, SimpleITKIO(), values)["metrics"]
        return [[int(found[value][name]) for name in ("TP", "FP", "FN", "TN")] for value in values]

    return run


def postprocessing(folder: str, references: str, plans: str, dataset_json: str) -> Callable[[], object]:
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    plans_json, facts = _json(Path(plans)), _json(Path(dataset_json))

    def run() -> object:
        for name in ("summary.json", "postprocessing.json", "postprocessing.pkl"):
            (Path(folder) / name).unlink(missing_ok=True)
        shutil.rmtree(Path(folder) / "postprocessed", ignore_errors=True)
        _, arguments = determine_postprocessing(folder, references, plans_json, facts, 1, True)
        masks = [entry["labels_or_regions"] for entry in arguments]
        return [[int(value) for value in (mask if isinstance(mask, (list, tuple)) else [mask])] for mask in masks]

    return run


def ensemble(members: Sequence[str], references: str, output: str) -> Callable[[], object]:
    """Average two configurations' out-of-fold probabilities and score the label maps, as in its search for the best."""
    from nnunetv2.ensembling.ensemble import ensemble_crossvalidations
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder

    manager, facts = _manager(f"{members[0]}/plans.json"), _json(Path(members[0]) / "dataset.json")
    labels, ending = manager.get_label_manager(facts), facts["file_ending"]

    def run() -> object:
        shutil.rmtree(output, ignore_errors=True)
        ensemble_crossvalidations(list(members), output, (0,), 1)
        found = compute_metrics_on_folder(
            references, output, f"{output}/summary.json", manager.image_reader_writer_class(), ending,
            labels.foreground_labels, labels.ignore_label, 1,
        )  # fmt: skip
        return {key: round(float(value), 9) for key, value in sorted(found["foreground_mean"].items())}

    return run


def _manager(plans: str) -> Any:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    return PlansManager(_json(Path(plans)))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
