# Targets, and the input functions that ask what was planned: thin calls of segwright.experiment, which is tested without
# Snakemake. Everything below a plan is requested through `checkpoints.plan.get()`; that is what makes unchanged content
# re-run nothing (docs/architecture.md, decision 1).


# --- targets -----------------------------------------------------------------------------------------------------------


def on_datasets(path):
    """One path for every dataset."""
    return expand(path, dataset=EXPERIMENT.datasets)


def everywhere(path):
    """One path for every dataset and pipeline."""
    return expand(path, dataset=EXPERIMENT.datasets, pipeline=EXPERIMENT.pipelines)


def final_predictions(wildcards):
    """The final manifest of every dataset that has test images."""
    with_tests = [name for name, dataset in EXPERIMENT.datasets.items() if dataset.test]
    return expand(R / "final/manifest.json", dataset=with_tests, pipeline=EXPERIMENT.pipelines)


def trained_models(wildcards):
    """Every model that any pipeline trains."""
    return [
        model
        for dataset in EXPERIMENT.datasets
        for pipeline in EXPERIMENT.pipelines
        for configuration in plan_of(dataset, pipeline)
        for model in fold_files(dataset, pipeline, configuration, "model.safetensors")
    ]


def preprocessed_indices(wildcards):
    """The index of every store that any trained configuration reads."""
    indices = set()
    for dataset in EXPERIMENT.datasets:
        for pipeline in EXPERIMENT.pipelines:
            plan = plan_of(dataset, pipeline)
            for configuration in plan:
                if EXPERIMENT.folds_to_train(dataset, pipeline, configuration, plan):
                    indices.add(index_of(dataset, plan[configuration].data_id))
    return sorted(indices)


# --- the plan and what it decides --------------------------------------------------------------------------------------


def plan_folder(dataset, pipeline):
    """The folder of the plan; asks for the plan first.

    A job that a scheduler started is a Snakemake of its own that knows no other job: what it needs is there.
    """
    if workflow.remote_exec:
        return f"{RESULTS}/{dataset}/{pipeline}/plan"
    return checkpoints.plan.get(dataset=dataset, pipeline=pipeline).output.plan


def plan_of(dataset, pipeline):
    """The planned configurations; asks for the plan first."""
    folder = plan_folder(dataset, pipeline)
    with one_message():
        plan = read_configurations(folder)
        EXPERIMENT.requested_configurations(pipeline, plan)
    return plan


def plan_file(name):
    """Input function: one file of the plan folder."""

    def path(wildcards):
        return f"{plan_folder(wildcards.dataset, wildcards.pipeline)}/{name}"

    return path


def image_reader(wildcards):
    """Name of the reader the plans chose for the dataset's files."""
    folder = plan_folder(wildcards.dataset, wildcards.pipeline)
    with one_message():
        return read_image_reader(folder)


def slice_of(kind):
    """Input function: the plan slice of `wildcards.configuration` that one kind of job reads."""

    def path(wildcards):
        return plan_file(f"{wildcards.configuration}.{kind}.json")(wildcards)

    return path


def preprocess_slice(wildcards):
    """Content of the preprocess slice with this data_id, from the first pipeline whose finished plan has it."""
    waiting = None
    for pipeline in EXPERIMENT.pipelines:
        try:
            folder = plan_folder(wildcards.dataset, pipeline)
        except IncompleteCheckpointException as incomplete:
            waiting = waiting or incomplete
            continue
        if workflow.remote_exec and not Path(folder, "configurations.json").is_file():
            continue  # another pipeline's, not planned yet
        with one_message():
            for planned in read_configurations(folder).values():
                if planned.data_id == wildcards.data_id:
                    return read_json(f"{folder}/{planned.name}.preprocess.json")
    if waiting is not None:
        raise waiting
    stop(f"no plan of {wildcards.dataset} has the preprocessed data {wildcards.data_id}")


def index_of(dataset, data_id):
    return f"{RESULTS}/{dataset}/data/preprocessed/{data_id}/index.json"


def own_index(wildcards):
    """The store a configuration trains on."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    return index_of(wildcards.dataset, plan[wildcards.configuration].data_id)


def next_stage_indices(wildcards):
    """The stores of the configurations that build on this one, in plans order of their names."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    return [index_of(wildcards.dataset, plan[name].data_id) for name in next_stages(wildcards)]


def next_stages(wildcards):
    """Candidates' cascades that build on this configuration."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    return [
        name
        for name in plan[wildcards.configuration].next_stages
        if name in plan and EXPERIMENT.folds_to_train(wildcards.dataset, wildcards.pipeline, name, plan)
    ]


def previous_stage_maps(wildcards):
    """For a cascade: the label maps its previous stage made for it; else nothing."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    previous = plan[wildcards.configuration].previous_stage
    return [] if previous is None else f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/{previous}/next_stage.json"


# --- folds and candidates ----------------------------------------------------------------------------------------------


def fold_files(dataset, pipeline, configuration, name, folds=None):
    """One file of every fold of a configuration."""
    if folds is None:
        folds = EXPERIMENT.folds_to_train(dataset, pipeline, configuration, plan_of(dataset, pipeline))
    return [f"{RESULTS}/{dataset}/{pipeline}/{configuration}/fold_{fold}/{name}" for fold in folds]


def requested_fold_files(name):
    """Input function: one file of every fold that counts for validation."""

    def paths(wildcards):
        plan_of(wildcards.dataset, wildcards.pipeline)
        folds = EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline)
        return fold_files(wildcards.dataset, wildcards.pipeline, wildcards.configuration, name, folds)

    return paths


def every_planned_fold(name):
    """Input function: one file of every planned fold, whatever was requested."""

    def paths(wildcards):
        plan_of(wildcards.dataset, wildcards.pipeline)
        folds = EXPERIMENT.planned_folds(wildcards.dataset)
        return fold_files(wildcards.dataset, wildcards.pipeline, wildcards.configuration, name, folds)

    return paths


def candidate_summaries(wildcards):
    """Cross-validation summaries of all candidates: single configurations in plans order, then pairs."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    root = f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}"
    if EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline) == [ALL]:
        return []
    singles = EXPERIMENT.requested_configurations(wildcards.pipeline, plan)
    pairs = EXPERIMENT.ensembles(wildcards.dataset, wildcards.pipeline, plan)
    return [f"{root}/{name}/crossval/summary.json" for name in singles] + [
        f"{root}/ensembles/{a}+{b}/summary.json" for a, b in pairs
    ]


def needs_probabilities(wildcards):
    """Whether any ensemble with this configuration is scored. What is kept already does no harm: no reason to run."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    pairs = EXPERIMENT.ensembles(wildcards.dataset, wildcards.pipeline, plan)
    fold = f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/{wildcards.configuration}/fold_{wildcards.fold}"
    kept = keeps_probabilities(Path(fold) / "probabilities.json")
    return kept or any(wildcards.configuration in pair for pair in pairs)


def fold_split(wildcards):
    """Training and validation cases of a fold; the split is an ancestor of every plan."""
    plan_of(wildcards.dataset, wildcards.pipeline)
    return f"{RESULTS}/{wildcards.dataset}/data/splits/fold_{wildcards.fold}.json"


def ensemble_member(position, name):
    """Input function: one file of every requested fold of the first or second member of an ensemble."""

    def paths(wildcards):
        plan_of(wildcards.dataset, wildcards.pipeline)
        folds = EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline)
        member = wildcards.ensemble.split("+")[position]
        return fold_files(wildcards.dataset, wildcards.pipeline, member, name, folds)

    return paths


def all_fold_files(name):
    """Input function: one file of every trained fold of every configuration."""

    def paths(wildcards):
        plan = plan_of(wildcards.dataset, wildcards.pipeline)
        return [path for member in plan for path in fold_files(wildcards.dataset, wildcards.pipeline, member, name)]

    return paths
