# What jobs need of the machine. Never part of a result. The arithmetic stands in segwright.resources; here is its input.

import time
from functools import partial

from segwright.core.errors import DamagedFileError
from segwright.core.slices import PredictPlan, PreprocessPlan, TrainPlan, read_slice
from segwright.experiment import loader_workers
from segwright.resources import (
    Needs,
    case_threads,
    ensemble_needs,
    evaluation_needs,
    finishing_needs,
    inspection_needs,
    postprocessing_needs,
    prediction_needs,
    preprocessing_needs,
    read_case_sizes,
    report_needs,
)
from segwright.splits import read_fold
from segwright.training.memory_limit import raised_memory_mb

STARTED = time.time()


def memory_mb(needs):
    """Resource function: the memory of what a job needs."""
    return lambda wildcards, input, threads: needs(wildcards, input, threads).memory_mb


def minutes(needs):
    """Resource function: the time limit of what a job needs."""
    return lambda wildcards, input, threads: needs(wildcards, input, threads).minutes


def threads_for(needs):
    """Thread function: of a job that goes through label maps, as many as have room for their cases."""
    return lambda wildcards, input: case_threads(partial(needs, wildcards, input))


def told_by(path, read, *how):
    """What a file says; None where it is not there yet, or damaged: its reader says so.

    An error here would end all jobs that run, because Snakemake asks what a job needs beside them.
    """
    try:
        return read(path, *how) if Path(path).is_file() else None
    except DamagedFileError:
        return None


# --- GPU jobs ----------------------------------------------------------------------------------------------------------


def gpu_count(wildcards):
    """GPU jobs take a GPU slot unless the user chose the CPU."""
    return 0 if CPU_ONLY else 1


def training_threads(wildcards):
    """On the CPU what torch uses; beside a GPU the processes that load and augment."""
    torch_threads = EXPERIMENT.pipeline(wildcards.pipeline).training.torch_threads
    return torch_threads + (EXECUTION.loader_workers or 0) if CPU_ONLY else EXECUTION.gpu_job_threads


def training_memory_mb(wildcards, input, threads, attempt):
    """As set, or more where batches are large; twice as much after every attempt that ran out of it, never because of
    the number of attempts alone."""
    asked_mb = EXECUTION.train_mem_mb
    if plan := told_by(str(input.plan), read_slice, TrainPlan):
        from segwright.training.host_memory import asked_memory_mb

        workers = loader_workers(EXECUTION, threads, "cpu" if CPU_ONLY else "cuda")
        augment_on = EXPERIMENT.pipeline(wildcards.pipeline).training.augment_on
        asked_mb = asked_memory_mb(plan, workers, asked_mb, augment_on)
    folder = getattr(workflow.executor_settings, "logdir", None) or ".snakemake/slurm_logs"
    fold = f"{wildcards.dataset}_{wildcards.pipeline}_{wildcards.configuration}_{wildcards.fold}"
    return raised_memory_mb(asked_mb, Path(folder) / "rule_train_fold" / fold, STARTED)


def fold_prediction(wildcards, input, threads):
    """The validation cases of a fold, by its model."""
    sizes, fold = training_case_sizes(wildcards.dataset), told_by(str(input.split), read_fold)
    held_out = sizes if fold is None else fold.val
    return prediction_of([sizes[case_id] for case_id in held_out if case_id in sizes], input.plan, 1)


def test_prediction(wildcards, input, threads):
    """The test images of a batch, by the models of all folds."""
    return prediction_of(read_case_sizes([str(input.records)]).values(), input.plan, len(input.models))


def prediction_of(cases, path, models):
    """Cases by the models of some folds; what is set for all where the plan is still to be made."""
    plan = told_by(str(path), read_slice, PredictPlan)
    if plan is None:
        return Needs(EXECUTION.predict_mem_mb, 720)
    return prediction_needs(cases, plan, models, EXECUTION.predict_mem_mb, CPU_ONLY)


# --- jobs that go through images ---------------------------------------------------------------------------------------


def training_case_sizes(dataset):
    """By case, from the records that exist by now."""
    return read_case_sizes(inspection_records(dataset))


def test_case_sizes(dataset):
    """By case, from the records that exist by now."""
    return read_case_sizes(test_records(dataset))


def inspection(wildcards, input, threads):
    return inspection_needs(EXPERIMENT.training_batches(wildcards.dataset).files_by_case(wildcards.batch), threads)


def test_inspection(wildcards, input, threads):
    return inspection_needs(EXPERIMENT.test_batches(wildcards.dataset).files_by_case(wildcards.batch), threads)


def preprocessing(wildcards, input, threads):
    """From the shapes in the inspection records and the target spacing."""
    if not Path(str(input.inspection)).is_file():
        return Needs(1000, 240)
    plan = PreprocessPlan.from_json(preprocess_slice(wildcards))
    return preprocessing_needs(read_case_sizes([str(input.inspection)]).values(), plan, threads)


# --- jobs that go through predictions ----------------------------------------------------------------------------------


def predict_plans(wildcards, configurations):
    """The predict slices that exist by now. Resources cannot ask for a checkpoint: a dry run would end there."""
    folder = Path(pipeline_folder(wildcards.dataset, wildcards.pipeline)) / "plan"
    plans = [told_by(str(folder / f"{name}.predict.json"), read_slice, PredictPlan) for name in configurations]
    return [plan for plan in plans if plan is not None]


def evaluation(wildcards, input, threads):
    return evaluation_needs(training_case_sizes(wildcards.dataset).values(), threads)


def ensemble_evaluation(wildcards, input, threads):
    members = predict_plans(wildcards, wildcards.ensemble.split("+"))
    return ensemble_needs(training_case_sizes(wildcards.dataset).values(), members, threads)


def choice_of_postprocessing(wildcards, input, threads):
    labels = EXPERIMENT.datasets[wildcards.dataset].labels
    return postprocessing_needs(training_case_sizes(wildcards.dataset).values(), labels, threads)


def finishing(wildcards, input, threads):
    """Probabilities are read where there are several members, or where the user wants them."""
    predictions = [] if isinstance(input.predictions, str) else input.predictions  # text: a checkpoint to come
    members = {Path(path).parent.name for path in predictions}
    wanted = EXPERIMENT.pipeline(wildcards.pipeline).prediction.save_probabilities
    averaged = predict_plans(wildcards, sorted(members)) if len(members) > 1 or wanted else []
    return finishing_needs(test_case_sizes(wildcards.dataset).values(), averaged, wanted, threads)


def reporting(wildcards, input, threads):
    labels = EXPERIMENT.datasets[wildcards.dataset].labels
    return report_needs(training_case_sizes(wildcards.dataset).values(), labels)
