"""What a user writes, and what is planned from it: configuration, dataset.json, fingerprints, plans and slices."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from segwright.cli_inputs import dataset_facts, json_object, read_plans
from segwright.cli_inputs import reader_of as planned_reader
from segwright.conversion.msd import convert_msd
from segwright.conversion.v1 import convert_v1
from segwright.core.configfile import load_settings, pipeline_settings_from_file, training_settings_from_file
from segwright.core.dataset import load_dataset
from segwright.core.files import json_digest
from segwright.core.settings import PlanningSettings, PreprocessingSettings
from segwright.core.slices import PredictPlan, PreprocessPlan, TrainPlan, preprocess_slice, read_slice, train_slice
from segwright.experiment import Experiment
from segwright.inspection.batch import reader_of
from segwright.inspection.together import find_file_problems
from segwright.planning.planner import make_plans
from segwright.planning.slices import write_plan_folder
from segwright.preprocessing.memory import estimate_memory_mb
from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.project import FILE, changed, declared_labels, parts, use_unchanged
from tests.fuzz.target import Sample, Sampler, Target


def _use_dataset(path: Path) -> None:
    dataset = load_dataset(path.parent)
    reader_of(dataset)
    find_file_problems(dataset)
    _ = (dataset.labels.num_outputs, dataset.labels.annotated_key, dataset.labels.to_json(), dataset.training_case)
    json_digest(
        Experiment(load_settings({"datasets": {"D": {"path": str(path.parent)}}}), {"D": dataset}).inspection_params(
            "D"
        )
    )


def _dataset_sampler() -> Sampler:
    facts = parts().facts
    others = {name: b"x" for name in parts().raw if name != "dataset.json"}

    def draw(rng: random.Random) -> Sample:
        files = {**others, "dataset.json": mutated_json(rng, facts)}
        return Sample(files, lambda folder: _use_dataset(folder / "dataset.json"), ("dataset.json", "/inputs"))

    use_unchanged(
        {**others, "dataset.json": json.dumps(facts).encode()}, lambda folder: _use_dataset(folder / "dataset.json")
    )
    return draw


def _use_planning(folder: Path) -> None:
    """What `segwright plan` does."""
    facts, fingerprint = dataset_facts(folder / "dataset.json"), json_object(folder / "dataset_fingerprint.json")
    settings = PlanningSettings()
    reader = planned_reader(fingerprint, facts, folder / "dataset.json")
    plans, reasons = make_plans(fingerprint, facts, settings, dataset_name="D", reader=reader)
    write_plan_folder(folder / "plan", plans, reasons, facts, PreprocessingSettings())


def _planning_sampler() -> Sampler:
    base = {"dataset.json": parts().facts, "dataset_fingerprint.json": parts().fingerprint}
    unchanged = {name: json.dumps(value).encode() for name, value in base.items()}
    use_unchanged(unchanged, _use_planning)

    def draw(rng: random.Random) -> Sample:
        name = rng.choice(tuple(base))
        return Sample({**unchanged, name: mutated_json(rng, base[name])}, _use_planning, (*base, "fingerprint"))

    return draw


def _use_plans(path: Path) -> None:
    """What `segwright preprocess` and `train` read of plans, and pinned plans."""
    dataset = SimpleNamespace(labels=declared_labels(), channel_names=("T1", "T2"))
    plans = read_plans(path)
    for name in plans.configurations:
        plans.configuration(name)
        preprocess_slice(plans, name, dataset.labels, dataset.channel_names)
        train_slice(plans, name, dataset.labels)
    facts = parts().facts
    settings = PlanningSettings(plans_file=str(path))
    pinned, reasons = make_plans(parts().fingerprint, facts, settings, dataset_name="D", reader="SimpleITKIO")
    write_plan_folder(path.parent / "plan", pinned, reasons, facts, PreprocessingSettings())


def _slice(kind: str, cls: Any) -> Callable[[], Sampler]:
    def use(path: Path) -> None:
        plan = read_slice(path, cls)
        json_digest(plan.to_json())
        if isinstance(plan, PreprocessPlan):
            _ = plan.data_id
            estimate_memory_mb((30, 40, 50), (1.0, 1.0, 1.0), plan, len(plan.normalization_schemes))

    return changed(lambda: parts().slices[f"3d_fullres.{kind}.json"], use)


_CONFIG = {
    "results": "results", "plugins": [],
    "datasets": {
        "Dataset004_A": {"path": "/data/a", "batches": 4, "case_table": "t.tsv", "splits": {"folds": 3, "seed": 1,
        "group": "p"}},
    },
    "defaults": {
        "planning": {"planner": "default", "gpu_memory_gb": 8, "overrides": {"2d": {"batch_size": 4}},
        "spacing_mm": [1, 1, 1]},
        "training": {"epochs": 5, "iterations": 3, "learning_rate": 0.01, "folds": [0, 1], "precision": "fp32"},
        "prediction": {"tile_step": 0.5, "mirroring": False}, "selection": {"ensembles": True},
    },
    "pipelines": {"default": {}, "wide": {"training": {"epochs": 2}}},
    "execution": {"jobs_per_gpu": 1, "deadline": "auto"}, "report": {"title": "x"},
}  # fmt: skip


def _config_sampler() -> Sampler:
    ways: tuple[Callable[[Path], object], ...] = (
        load_settings, pipeline_settings_from_file, training_settings_from_file,
        lambda path: load_settings(_parsed(path)),
    )  # fmt: skip

    def draw(rng: random.Random) -> Sample:
        text = mutated_json(rng, _CONFIG)
        if rng.random() < 0.5:
            text = yaml.safe_dump(_plain(text), sort_keys=False, allow_unicode=True).encode("utf-8", "replace")
            text = text if rng.random() < 0.4 else mutated(rng, text, (_YAML_TRICKS,))
        way = rng.choice(ways[:3])
        return Sample({FILE: text}, lambda folder: way(folder / FILE), (FILE, *_SETTING_WORDS))

    return draw


def _parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


_YAML_TRICKS = (
    b"a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b]\n<<: *a\n? [1, 2]\n: x\n"
    b"!!python/object/apply:os.system ['x']\n"
    b"d: !!set {a}\ne: 2020-01-01\nf: 0x1F\ng: 1_000\nh: .inf\ni: 12:30:45\nj: !!binary aGk=\nk: ~\n---\nl: 1\n"
)


_SETTING_WORDS = (
    "planning", "training", "prediction", "selection", "preprocessing", "datasets", "pipelines", "execution", "report",
    "defaults", "results", "plugins", "configuration", "is not known",
)  # fmt: skip
"""A refused option is named by its path; the command line names the file where it cannot be parsed."""


def _plain(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"training": {"epochs": text[:100].decode("utf-8", "replace")}}


def _conversion_sampler() -> Sampler:
    """dataset.json of a Decathlon or nnU-Net v1 task."""
    facts = {
        "name": "Heart", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "atrium"}, "numTraining": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], "test": [],
    }  # fmt: skip
    image = parts().raw["labelsTr/phantom_000.nii.gz"]
    msd = "Task05_Heart"
    files = {f"{msd}/imagesTr/a.nii.gz": image, f"{msd}/labelsTr/a.nii.gz": image}
    files |= {"v1/imagesTr/a_0000.nii.gz": image, "v1/labelsTr/a.nii.gz": image}

    def draw(rng: random.Random) -> Sample:
        kind = rng.choice((msd, "v1"))
        made = {**{name: data for name, data in files.items() if name.startswith(kind)}}
        made[f"{kind}/dataset.json"] = mutated_json(rng, facts)

        def use(folder: Path) -> object:
            if kind == msd:
                return convert_msd(folder / msd, folder / "out", dataset_id=5)
            return convert_v1(folder / "v1", folder / "out", name="Dataset005_Heart")

        return Sample(made, use, ("dataset.json", "/inputs"))

    return draw


def document_targets() -> list[Target]:
    return [
        Target("dataset_json", _dataset_sampler, 5_000),
        Target("config", _config_sampler, 8_000),
        Target("planning", _planning_sampler, 1_000),
        Target("plans", changed(lambda: parts().plans, _use_plans, "plans.json"), 3_000),
        Target("slice_preprocess", _slice("preprocess", PreprocessPlan), 1_500),
        Target("slice_train", _slice("train", TrainPlan), 1_500),
        Target("slice_predict", _slice("predict", PredictPlan), 1_500),
        Target("conversion", _conversion_sampler, 500),
    ]
