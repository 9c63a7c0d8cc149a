# What jobs need of the machine. Never part of a result.

import time

from segwright.core.slices import TrainPlan, read_slice
from segwright.experiment import loader_workers
from segwright.training.memory_limit import raised_memory_mb

STARTED = time.time()
SNAKEMAKE_MB = 400  # under a scheduler two Snakemakes stand around each script, and their memory counts as the job's


def gpu_count(wildcards):
    """GPU jobs take a GPU slot unless the user chose the CPU."""
    return 0 if CPU_ONLY else 1


def training_threads(wildcards):
    """On the CPU what torch uses; beside a GPU the processes that load and augment."""
    torch_threads = EXPERIMENT.pipeline(wildcards.pipeline).training.torch_threads
    return torch_threads + (EXECUTION.loader_workers or 0) if CPU_ONLY else EXECUTION.gpu_job_threads


def file_size_mb(path):
    """Size of a raw file; compressed images grow about tenfold in memory."""
    return Path(path).stat().st_size / 1e6 if Path(path).is_file() else 0


def inspection_memory_mb(wildcards, input):
    return SNAKEMAKE_MB + 400 + int(25 * max(map(file_size_mb, input.files), default=0))


def largest_case_mb(wildcards):
    """Megabytes of the largest image as float32, from the inspection records that exist by now."""
    records = Path(f"{RESULTS}/{wildcards.dataset}/data/inspection").glob("batch_*.json")
    return max((largest_image_mb(read_json(path)) for path in records), default=0)


def preprocessing_memory_mb(wildcards, input, threads):
    """From the shapes in the inspection records and the target spacing."""
    records = Path(str(input.inspection))
    if not records.is_file():
        return 1000
    return SNAKEMAKE_MB + batch_memory_mb(read_json(records), preprocess_slice(wildcards), threads)


def training_memory_mb(wildcards, input, threads, attempt):
    """As set, or more where batches are large; twice as much after every attempt that ran out of it, never because of
    the number of attempts alone."""
    asked_mb = EXECUTION.train_mem_mb
    if Path(str(input.plan)).is_file():
        from segwright.training.host_memory import asked_memory_mb

        workers = loader_workers(EXECUTION, threads, "cpu" if CPU_ONLY else "cuda")
        augment_on = EXPERIMENT.pipeline(wildcards.pipeline).training.augment_on
        asked_mb = asked_memory_mb(read_slice(str(input.plan), TrainPlan), workers, asked_mb, augment_on)
    folder = getattr(workflow.executor_settings, "logdir", None) or ".snakemake/slurm_logs"
    fold = f"{wildcards.dataset}_{wildcards.pipeline}_{wildcards.configuration}_{wildcards.fold}"
    return raised_memory_mb(asked_mb, Path(folder) / "rule_train_fold" / fold, STARTED)


def prediction_memory_mb(wildcards, attempt):
    """Weights and tiles, plus image and logits of the largest case."""
    outputs = EXPERIMENT.datasets[wildcards.dataset].labels.num_outputs
    return EXECUTION.predict_mem_mb + int(largest_case_mb(wildcards) * (4 + 2 * outputs))


def evaluation_memory_mb(wildcards):
    """Two label maps and their joint histogram."""
    return SNAKEMAKE_MB + 400 + int(4 * largest_case_mb(wildcards))


def ensemble_memory_mb(wildcards):
    """The probabilities of all classes, twice."""
    outputs = EXPERIMENT.datasets[wildcards.dataset].labels.num_outputs
    return SNAKEMAKE_MB + 600 + int(largest_case_mb(wildcards) * (2 + 3 * outputs))
