"""The typed configuration: every option, its default and its meaning, in one place.

``config/config.yaml`` and its JSON schema are generated from these classes, and a user's file is checked against them
(see ``core/configfile.py``). Settings are data: nothing here computes a result. ``None`` means "decided by the plans,
by the schedule preset or by the machine", as the help text says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal


def option(default: Any, help_text: str, **limits: Any) -> Any:
    """A setting: its default, what it means, and optional ``minimum`` / ``maximum`` / ``exclusive_minimum``.

    ``built_in`` lists the names that need no plugin; ``path`` marks files and folders: ``~`` there is the user's home.
    """
    metadata = {"help": help_text, **limits}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How the training cases are divided into folds."""

    folds: int = option(
        5, "number of cross-validation folds (a splits_final.json in the dataset's folder overrides it)", minimum=2
    )
    seed: int = option(
        12345, "seed of the split (12345 is nnU-Net's; such a splits_final.json overrides it)", minimum=0
    )
    group: str | None = option(None, "column of the case table; cases of one group (patient, site) share a fold")
    group_pattern: str | None = option(
        None, "regular expression on the case id; its first group (or the whole match) is the group, e.g. '^(P\\d+)_'"
    )
    stratify: str | None = option(None, "column of the case table whose values are spread evenly over the folds")
    file: str | None = option(
        None,
        "a splits_final.json with ready-made folds; overrides everything above. One in the dataset's folder "
        "need not be named; it is used unless groups or strata are asked for",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """One dataset: where it lies and how it is divided."""

    path: str = option("", "folder in nnU-Net v2's raw layout (dataset.json, imagesTr, labelsTr, imagesTs)", path=True)
    case_table: str | None = option(None, "TSV or CSV with a column `case` and any columns for grouping", path=True)
    splits: SplitSettings = option(SplitSettings, "cross-validation folds")
    batches: int = option(32, "number of job batches the cases are hashed into; fixed at first use", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ConfigurationOverride:
    """Planned values of one configuration that you fix yourself. Axes are in planned (transposed) order."""

    spacing_mm: tuple[float, ...] | None = option(None, "target spacing in millimetres")
    patch_size: tuple[int, ...] | None = option(None, "patch size in voxels, divisible by the network's strides")
    batch_size: int | None = option(None, "samples per batch", minimum=1)


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """From fingerprint to plans."""

    planner: str = option(
        "default",
        "default, resenc, resenc_m, resenc_l, resenc_xl, or a plugin's planner",
        built_in=("default", "resenc", "resenc_m", "resenc_l", "resenc_xl"),
    )
    gpu_memory_gb: float | None = option(
        None, "memory target; null: the planner's own (8, 8, 8, 24, 40)", exclusive_minimum=0
    )
    spacing_mm: tuple[float, ...] | None = option(
        None, "target spacing instead of the planned one, axes as in the images (z, y, x)"
    )
    transpose: bool = option(True, "put the axis of lowest resolution first")
    base_features: int = option(32, "feature maps of the first stage", minimum=1)
    max_features_3d: int = option(320, "upper limit of feature maps in 3-D", minimum=1)
    max_features_2d: int = option(512, "upper limit of feature maps in 2-D", minimum=1)
    max_stages: int | None = option(
        None, "upper limit of resolution stages; null: as many as the patch allows", minimum=2
    )
    max_patch_size: int | None = option(
        None, "upper limit of every patch edge in voxels, for small machines", minimum=8
    )
    plans_file: str | None = option(None, "use this plans file as it is instead of planning", path=True)
    overrides: Mapping[str, ConfigurationOverride] = option(
        dict, "per configuration: spacing_mm, patch_size, batch_size"
    )
    add: Mapping[str, Mapping[str, Any]] = option(
        dict, "your own configurations in v2's form, e.g. 3d_bs4: {inherits_from: 3d_fullres, batch_size: 4}"
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessingSettings:
    """From raw images to stored cases."""

    label_resize: Literal["argmax", "threshold"] = option("argmax", "argmax: v2 now; threshold: v1 and older v2")
    order_of_steps: Literal["normalize_first", "resample_first"] = option(
        "normalize_first", "normalize_first: v2; resample_first: v1"
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One training. Options that are null take the value of the chosen ``schedule``."""

    configurations: tuple[str, ...] | None = option(None, "which configurations to train; null: all planned ones")
    folds: tuple[int, ...] | Literal["all"] | None = option(
        None, "which folds to train; null: every planned fold; all: one model on all cases, without validation"
    )
    schedule: Literal["standard", "short", "smoke"] = option(
        "standard",
        "standard: nnU-Net's 1000 x 250 SGD; short: 20 x 50 AdamW that really learns; smoke: 2 x 3, machinery only",
    )
    epochs: int | None = option(None, "number of epochs", minimum=1)
    iterations: int | None = option(None, "training iterations an epoch", minimum=1)
    validation_iterations: int | None = option(None, "validation iterations an epoch", minimum=1)
    optimizer: Literal["sgd", "adamw"] | None = option(None, "sgd (momentum 0.99, Nesterov) or adamw")
    learning_rate: float | None = option(None, "initial learning rate", exclusive_minimum=0)
    weight_decay: float | None = option(None, "weight decay on all parameters", minimum=0)
    momentum: float = option(0.99, "momentum of sgd", minimum=0, maximum=1)
    warmup_epochs: int | None = option(None, "epochs of linear learning-rate increase before the decay", minimum=0)
    decay: Literal["poly", "cosine", "constant"] = option("poly", "learning-rate decay over the planned epochs")
    gradient_clip: float = option(12.0, "global L2 norm the gradient is clipped to", exclusive_minimum=0)
    loss: str = option(
        "default",
        "default (Dice + cross entropy, or Dice + BCE for regions), dice, ce, or a plugin's loss",
        built_in=("default", "dice", "ce"),
    )
    dice_weight: float = option(1.0, "weight of the Dice term", minimum=0)
    ce_weight: float = option(1.0, "weight of the cross entropy term", minimum=0)
    class_weights: tuple[float, ...] | None = option(
        None, "weight of each output channel (background first, in label training) in the cross entropy"
    )
    network: str | None = option(
        None, "a plugin's network instead of the planned one", built_in=("plain_unet", "residual_unet")
    )
    foreground_share: float = option(0.33, "share of a batch that must show foreground", minimum=0, maximum=1)
    probabilistic_oversampling: bool = option(False, "draw each sample's foreground by chance instead of by position")
    augmentation: str = option("default", "default (v2), none, or a plugin's preset", built_in=("default", "none"))
    augment_on: Literal["workers", "device"] = option(
        "workers",
        "who augments training patches. workers: the processes that load them; device: those only read, and the GPU "
        "augments, for machines with few CPU cores a GPU (a cascade's patches are always augmented by workers)",
    )
    mirroring: bool = option(True, "flip patches in training, and images at prediction")
    deep_supervision: bool = option(True, "losses at every decoder resolution but the lowest")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = option("auto", "auto: fp16 on CUDA, else fp32")
    compile: bool | None = option(
        None, "use torch.compile; null: on CUDA where Triton is installed and 1000 steps or more are to be trained"
    )
    checkpoint_interval: int = option(1, "epochs between saved training states", minimum=1)
    early_stopping: int | None = option(
        None, "stop after this many epochs without a better EMA pseudo Dice; null: off", minimum=1
    )
    weights: Literal["final", "best"] = option(
        "final", "which weights become the model: last epoch or best EMA pseudo Dice"
    )
    seed: int = option(0, "seed of initialisation, sampling and augmentation", minimum=0)
    torch_threads: int = option(
        2, "threads of torch on the CPU; part of the result, so never taken from the machine", minimum=1
    )
    on_divergence: Literal["stop", "rollback"] = option(
        "stop",
        "when the loss is not finite. stop: end with the cause; rollback: go back to the last saved state once and go "
        "on with a tenth of the learning rate",
    )
    initial_model: str | None = option(
        None, "model.safetensors to start from (all but the segmentation heads must fit)", path=True
    )
    keep_state: bool = option(True, "keep the resumable state after a finished training")

    def resolved(self) -> TrainingSettings:
        """The same settings with every null that the schedule decides filled in."""
        preset = SCHEDULES[self.schedule]
        return replace(self, **{name: value for name, value in preset.items() if getattr(self, name) is None})


SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "standard": {
        "epochs": 1000, "iterations": 250, "validation_iterations": 50, "optimizer": "sgd", "learning_rate": 0.01,
        "weight_decay": 3e-5, "warmup_epochs": 0,
    },
    "short": {
        "epochs": 20, "iterations": 50, "validation_iterations": 10, "optimizer": "adamw", "learning_rate": 3e-3,
        "weight_decay": 1e-2, "warmup_epochs": 1,
    },
    "smoke": {
        "epochs": 2, "iterations": 3, "validation_iterations": 2, "optimizer": "adamw", "learning_rate": 3e-3,
        "weight_decay": 1e-2, "warmup_epochs": 0,
    },
}  # fmt: skip
"""Schedule presets (method 9.1 for ``standard``)."""


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """From image to label map."""

    configuration: str | None = option(
        None,
        "predict with this one instead of the selected; with folds: all, null means 3d_fullres, else 2d. "
        "Of several datasets those whose plans lack it use the selected one, with a warning",
    )
    tile_step: float = option(
        0.5, "distance of sliding-window tiles as a share of the patch", exclusive_minimum=0, maximum=1
    )
    gaussian: bool = option(True, "weight the centre of a tile more than its border")
    mirroring: bool = option(True, "average over flipped copies (only axes flipped in training)")
    average: Literal["logits", "probabilities"] = option(
        "logits", "what folds, tiles and mirrors average: logits (v2) or probabilities (v1)"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = option("auto", "auto: fp16 on CUDA, else fp32")
    save_probabilities: bool = option(False, "also write class probabilities of the test images")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """From out-of-fold predictions to the model that is used."""

    ensembles: bool = option(True, "also try every pair of configurations")
    postprocessing: bool = option(True, "decide by cross-validation whether keeping only the largest component helps")
    connectivity: Literal["full", "faces"] = option(
        "full", "neighbours of a voxel: full (26 in 3-D, v2) or faces (6, v1)"
    )


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """One complete method: all stages' settings."""

    planning: PlanningSettings = option(PlanningSettings, "from fingerprint to plans")
    preprocessing: PreprocessingSettings = option(PreprocessingSettings, "from raw images to stored cases")
    training: TrainingSettings = option(TrainingSettings, "one training")
    prediction: PredictionSettings = option(PredictionSettings, "from image to label map")
    selection: SelectionSettings = option(SelectionSettings, "from out-of-fold predictions to the model that is used")


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """How and where to run. Never changes results."""

    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "auto: CUDA if there is one, else CPU")
    jobs_per_gpu: int = option(1, "jobs that share one GPU", minimum=1)
    loader_workers: int | None = option(
        None, "processes that load and augment; null: from the cores of the job", minimum=0
    )
    gpu_job_threads: int = option(8, "cores of a job that uses a GPU (capped by --cores)", minimum=1)
    deadline: Literal["auto", "always", "never"] = option(
        "auto", "end a training itself before its time limit and submit it again; auto: only under a scheduler"
    )
    deadline_margin_min: float = option(10.0, "minutes kept before the time limit for saving", minimum=0)
    train_runtime_min: int = option(1440, "time limit of one training job under a scheduler, in minutes", minimum=1)
    train_mem_mb: int = option(8000, "memory of one training job", minimum=500)
    predict_mem_mb: int = option(8000, "least memory of one prediction job", minimum=500)


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The HTML report."""

    title: str = option("segwright report", "headline of the report")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole configuration file."""

    datasets: Mapping[str, DatasetSettings] = option(dict, "datasets by name")
    defaults: PipelineSettings = option(PipelineSettings, "settings every pipeline starts from")
    pipelines: Mapping[str, PipelineSettings] = option(
        lambda: {"default": PipelineSettings()}, "named variations of the defaults; `default` always exists"
    )
    execution: ExecutionSettings = option(ExecutionSettings, "how and where to run; never changes results")
    report: ReportSettings = option(ReportSettings, "the HTML report")
    results: str = option("results", "folder of all results", path=True)
    plugins: tuple[str, ...] = option(
        (), "Python files that register networks, losses, augmentations or planners", path=True
    )


def to_plain(settings: Any) -> Any:
    """A settings object as plain dictionaries and lists, for JSON and for Snakemake's params."""
    if hasattr(settings, "__dataclass_fields__"):
        return {f.name: to_plain(getattr(settings, f.name)) for f in fields(settings)}
    if isinstance(settings, Mapping):
        return {key: to_plain(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [to_plain(value) for value in settings]
    return settings
