# Input functions that ask which model was selected; they request the selection through `checkpoints.select_best.get()`.


def selection_folder(dataset, pipeline):
    """The folder of the selection; asks for plan and selection first, as :func:`plan_folder` does."""
    if workflow.remote_exec:
        return f"{pipeline_folder(dataset, pipeline)}/selection"
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
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    folds = EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline)
    if folds == [ALL]:
        return []
    if len(members) > 1:
        return [f"{root}/ensembles/{'+'.join(members)}/labels.json"]
    return fold_files(wildcards.dataset, wildcards.pipeline, members[0], "validation.json", folds)


def test_model_files(name):
    """Input function: one file of each fold that predicts the test images with a configuration."""

    def paths(wildcards):
        folds = model_folds(wildcards, wildcards.configuration)
        return fold_files(wildcards.dataset, wildcards.pipeline, wildcards.configuration, name, folds)

    return paths


def previous_test_predictions(wildcards):
    """For a cascade: its previous stage's predictions of the same test images; else nothing."""
    previous = planned_for(wildcards).previous_stage
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    return [] if previous is None else f"{root}/predictions/{previous}/{wildcards.batch}.json"


def test_probabilities(wildcards):
    """Test probabilities are kept for an ensemble, because the user wants them, or because they are there already."""
    members = selected_members(wildcards)
    wanted = EXPERIMENT.pipeline(wildcards.pipeline).prediction.save_probabilities
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    kept = keeps_probabilities(Path(f"{root}/predictions/{wildcards.configuration}/{wildcards.batch}.json"))
    return kept or (wildcards.configuration in members and (len(members) > 1 or wanted))


def winner_test_predictions(wildcards):
    """Test predictions of every member, all batches of the first member first."""
    return expand(
        R / "predictions/{configuration}/{batch}.json",
        dataset=wildcards.dataset,
        pipeline=wildcards.pipeline,
        configuration=selected_members(wildcards),
        batch=EXPERIMENT.test_batches(wildcards.dataset).names,
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
    root = pipeline_folder(wildcards.dataset, wildcards.pipeline)
    return f"{root}/final/manifest.json" if has_tests else []


def predicted(dataset, pipeline):
    """What the final segmentations, the model and the report are made from, besides what was evaluated."""
    predictions = winner_test_predictions(SimpleNamespace(dataset=dataset, pipeline=pipeline))
    postprocessing = f"{pipeline_folder(dataset, pipeline)}/postprocessing.json"
    return [*test_records(dataset), postprocessing, *predictions]
