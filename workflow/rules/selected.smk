# Input functions that ask which model was selected; they request the selection through `checkpoints.select_best.get()`.


def selection_folder(dataset, pipeline):
    """The folder of the selection; asks for plan and selection first, as :func:`plan_folder` does."""
    if workflow.remote_exec:
        return f"{RESULTS}/{dataset}/{pipeline}/selection"
    plan_of(dataset, pipeline)
    return checkpoints.select_best.get(dataset=dataset, pipeline=pipeline).output.selection


def selected_members(wildcards):
    """The selected configurations; asks for the selection first."""
    folder = selection_folder(wildcards.dataset, wildcards.pipeline)
    with one_message():
        return read_selected_members(folder)


def members_and_previous_stages(wildcards):
    """The selected configurations and the previous stages they need, without repeats."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    names = []
    for member in selected_members(wildcards):
        for name in [member, *previous_stages(member, plan)]:
            if name not in names:
                names.append(name)
    return names


def model_folds(wildcards, configuration):
    """The folds whose models predict: the requested ones, or every planned fold of a previous stage."""
    if configuration in selected_members(wildcards):
        return EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline)
    return EXPERIMENT.planned_folds(wildcards.dataset)


def selection_file(wildcards):
    """selection.json, through its checkpoint."""
    return f"{selection_folder(wildcards.dataset, wildcards.pipeline)}/selection.json"


def winner_label_maps(wildcards):
    """Manifests of the winner's out-of-fold label maps; nothing where a model was trained on all cases."""
    members = selected_members(wildcards)
    if EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline) == [ALL]:
        return []
    if len(members) > 1:
        return [f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/ensembles/{'+'.join(members)}/labels.json"]
    folds = EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline)
    return fold_files(wildcards.dataset, wildcards.pipeline, members[0], "validation.json", folds)


def test_model_files(name):
    """Input function: one file of each fold that predicts the test images with a configuration."""

    def paths(wildcards):
        folds = model_folds(wildcards, wildcards.configuration)
        return fold_files(wildcards.dataset, wildcards.pipeline, wildcards.configuration, name, folds)

    return paths


def previous_test_predictions(wildcards):
    """For a cascade: its previous stage's predictions of the same test images; else nothing."""
    plan = plan_of(wildcards.dataset, wildcards.pipeline)
    previous = plan[wildcards.configuration].previous_stage
    root = f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/predictions"
    return [] if previous is None else f"{root}/{previous}/{wildcards.batch}.json"


def test_probabilities(wildcards):
    """Test probabilities are kept for an ensemble, because the user wants them, or because they are there already."""
    members = selected_members(wildcards)
    wanted = EXPERIMENT.pipeline(wildcards.pipeline).prediction.save_probabilities
    folder = f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/predictions/{wildcards.configuration}"
    kept = keeps_probabilities(Path(folder) / f"{wildcards.batch}.json")
    return kept or (wildcards.configuration in members and (len(members) > 1 or wanted))


def winner_test_predictions(wildcards):
    """Test predictions of every member, all batches of the first member first."""
    return expand(
        R / "predictions/{configuration}/{batch}.json",
        dataset=wildcards.dataset,
        pipeline=wildcards.pipeline,
        configuration=selected_members(wildcards),
        batch=EXPERIMENT.test_batches(wildcards.dataset),
    )


def packaged_files(name):
    """Input function: one file of every fold of every configuration that goes into the model."""

    def paths(wildcards):
        return [
            path
            for configuration in members_and_previous_stages(wildcards)
            for path in fold_files(
                wildcards.dataset, wildcards.pipeline, configuration, name, model_folds(wildcards, configuration)
            )
        ]

    return paths


def packaged_slices(wildcards):
    """The predict slices of the configurations that go into the model."""
    plan = plan_folder(wildcards.dataset, wildcards.pipeline)
    return [f"{plan}/{configuration}.predict.json" for configuration in members_and_previous_stages(wildcards)]


def final_manifest(wildcards):
    """The finished test segmentations, where the dataset has test images."""
    has_tests = bool(EXPERIMENT.datasets[wildcards.dataset].test)
    return f"{RESULTS}/{wildcards.dataset}/{wildcards.pipeline}/final/manifest.json" if has_tests else []


def everything_they_rest_on(wildcards):
    """What stands between the raw images and the final products, asked for by name.

    A job that fails loses its outputs, and Snakemake does not miss them: the older products made from their
    predecessors would be called up to date. A store of preprocessed cases that was deleted as a whole is not made again.
    """
    paths = []
    for dataset in EXPERIMENT.datasets:
        data = f"{RESULTS}/{dataset}/data"
        batches = EXPERIMENT.batches(dataset)
        paths += [f"{data}/inspection/{batch}.json" for batch in batches]
        paths += [f"{data}/{name}" for name in ("checks.json", "valid.json", "dataset_fingerprint.json", "splits")]
        paths += [f"{data}/test/{batch}.json" for batch in EXPERIMENT.test_batches(dataset)]
        for pipeline in EXPERIMENT.pipelines:
            paths += products_of(dataset, pipeline, batches)
    return paths


def products_of(dataset, pipeline, batches):
    """The intermediate products of one pipeline, trainings to test predictions."""
    which = SimpleNamespace(dataset=dataset, pipeline=pipeline)
    plan = plan_of(dataset, pipeline)
    root = f"{RESULTS}/{dataset}/{pipeline}"
    paths = []
    for name, planned in plan.items():
        paths += fold_files(dataset, pipeline, name, "model.safetensors")
        index = index_of(dataset, planned.data_id)
        if Path(index).is_file():
            paths += [f"{RESULTS}/{dataset}/data/preprocessed/{planned.data_id}/{batch}.json" for batch in batches]
    for summary in candidate_summaries(which):
        paths.append(summary)
        if Path(summary).parent.name == "crossval":
            folds = EXPERIMENT.requested_folds(dataset, pipeline)
            paths += fold_files(dataset, pipeline, candidate_of(summary), "validation.json", folds)
    paths.append(f"{root}/postprocessing.json")
    return [*paths, *winner_test_predictions(which)]
