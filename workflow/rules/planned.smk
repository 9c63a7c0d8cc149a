# Targets, and the input functions that ask what was planned: thin calls of segwright.experiment, which is tested without
# Snakemake. Everything below a plan is requested through `checkpoints.plan.get()`; that is what makes unchanged content
# re-run nothing (docs/architecture.md, decision 1).


# --- targets -----------------------------------------------------------------------------------------------------------
#
# A job that fails loses its outputs, and Snakemake does not miss them: the older products made from their predecessors
# would be called up to date. So every target asks by name for what stands between the raw images and its products.


WITH_TESTS = [name for name, dataset in EXPERIMENT.datasets.items() if dataset.test]


def everywhere(path, datasets=EXPERIMENT.datasets):
    """One path for every dataset and pipeline."""
    return expand(path, dataset=datasets, pipeline=EXPERIMENT.pipelines)


def every(products, datasets=EXPERIMENT.datasets):
    """Input function: what `products` lists for every dataset and pipeline."""

    def paths(wildcards):
        listed = [products(dataset, pipeline) for dataset in datasets for pipeline in EXPERIMENT.pipelines]
        return list(dict.fromkeys(path for some in listed for path in some))

    return paths


def inspected(dataset, pipeline):
    """What inspection makes of a dataset."""
    data = data_folder(dataset)
    collected = [f"{data}/checks.json", f"{data}/valid.json", f"{data}/dataset_fingerprint.json"]
    return [*inspection_records(dataset), *collected]


def ready_to_plan(dataset, pipeline):
    """What plans are made from."""
    return [*inspected(dataset, pipeline), f"{data_folder(dataset)}/splits"]


def preprocessed(dataset, pipeline):
    """The store of every trained configuration, with its batches."""
    plan = plan_of(dataset, pipeline)
    needed = [plan[name] for name in plan if EXPERIMENT.folds_to_train(dataset, pipeline, name, plan)]
    indices = [index_of(dataset, planned.data_id) for planned in needed]
    return [path for index in indices for path in (index, *batches_of(dataset, index))]


def trained(dataset, pipeline):
    """Every model, and the batches it learned from; a store that was deleted as a whole is not made again."""
    paths = []
    for name, planned in plan_of(dataset, pipeline).items():
        models = fold_files(dataset, pipeline, name, "model.safetensors")
        index = index_of(dataset, planned.data_id)
        paths += [*models, *(batches_of(dataset, index) if models and Path(index).is_file() else [])]
    return paths


def evaluated(dataset, pipeline):
    """What the selection is made from: summaries and the validations they count."""
    paths = []
    for summary in candidate_summaries(SimpleNamespace(dataset=dataset, pipeline=pipeline)):
        paths.append(summary)
        if Path(summary).parent.name == "crossval":
            folds = EXPERIMENT.requested_folds(dataset, pipeline)
            paths += fold_files(dataset, pipeline, candidate_of(summary), "validation.json", folds)
    return paths


# --- the plan and what it decides --------------------------------------------------------------------------------------


def plan_folder(dataset, pipeline):
    """The folder of the plan; asks for the plan first.

    A job that a scheduler started is a Snakemake of its own that knows no other job: what it needs is there.
    """
    if workflow.remote_exec:
        return f"{pipeline_folder(dataset, pipeline)}/plan"
    return checkpoints.plan.get(dataset=dataset, pipeline=pipeline).output.plan


def plan_of(dataset, pipeline):
    """The planned configurations, if they serve what is wanted; asks for the plan first."""
    folder = plan_folder(dataset, pipeline)
    with one_message():
        plan = read_configurations(folder)
        EXPERIMENT.require_what_predicts(dataset, pipeline, plan)
    if workflow.is_main_process:
        warn_of_another_predicting(dataset, pipeline, tuple(EXPERIMENT.without_what_predicts(pipeline, plan)))
    return plan


@cache
def warn_of_another_predicting(dataset, pipeline, lacking):
    """Once, however often the graph asks for the plan."""
    if lacking:
        logger.warning(
            f"dataset {dataset}, pipeline {pipeline}: prediction.configuration is"
            f" {EXPERIMENT.pipeline(pipeline).prediction.configuration}, but {', '.join(lacking)} was not planned for"
            " this dataset; the configuration that is selected predicts here"
        )


def planned_for(wildcards):
    """The planned configuration a job is for; asks for the plan first."""
    return planned_configuration(plan_of(wildcards.dataset, wildcards.pipeline), wildcards.configuration)


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
    """The index of a store of preprocessed cases."""
    return f"{data_folder(dataset)}/preprocessed/{data_id}/index.json"


def batches_of(dataset, index):
    """The files of the batches beside an index."""
    return [f"{Path(index).parent}/{batch}.json" for batch in EXPERIMENT.training_batches(dataset).names]


def own_index(wildcards):
    """The store a configuration trains on."""
    return index_of(wildcards.dataset, planned_for(wildcards).data_id)


def next_stage_indices(wildcards):
    """The stores of the configurations that build on this one, in the order of `next_stages`."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    return [index_of(wildcards.dataset, plan[name].data_id) for name in next_stages(wildcards)]


def next_stages(wildcards):
    """Candidates' cascades that build on this configuration."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    return [
        name
        for name in planned_for(wildcards).next_stages
        if name in plan and EXPERIMENT.folds_to_train(wildcards.dataset, wildcards.pipeline, name, plan)
    ]


def previous_stage_maps(wildcards):
    """For a cascade: the label maps its previous stage made for it; else nothing."""
    previous = planned_for(wildcards).previous_stage
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    return [] if previous is None else f"{root}/{previous}/next_stage.json"


# --- folds and candidates ----------------------------------------------------------------------------------------------


def fold_files(dataset, pipeline, configuration, name, folds=None):
    """One file of every fold of a configuration."""
    if folds is None:
        folds = EXPERIMENT.folds_to_train(dataset, pipeline, configuration, plan_of(dataset, pipeline))
    return [f"{pipeline_folder(dataset, pipeline)}/{configuration}/fold_{fold}/{name}" for fold in folds]


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
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
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
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    kept = keeps_probabilities(Path(f"{root}/{wildcards.configuration}/fold_{wildcards.fold}/probabilities.json"))
    return kept or any(wildcards.configuration in pair for pair in pairs)


def fold_split(wildcards):
    """Training and validation cases of a fold; the split is an ancestor of every plan."""
    EXPERIMENT.require_fold(wildcards.dataset, wildcards.fold)
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    splits = f"{data_folder(wildcards.dataset)}/splits"
    with one_message():
        EXPERIMENT.require_held_out_cases(
            wildcards.dataset, wildcards.pipeline, wildcards.configuration, plan, Path(splits)
        )
    return f"{splits}/fold_{wildcards.fold}.json"


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
