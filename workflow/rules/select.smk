# Summaries -> the model that is used, and its postprocessing.


localrules:
    select_best,


checkpoint select_best:
    input:
        summaries=candidate_summaries,
        plan=plan_file("configurations.json"),
    output:
        selection=directory(R / "selection"),
    log:
        LOGS / "select_best/{pipeline}.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        version=STAGE_VERSION["selection"],
        folds=lambda wildcards: EXPERIMENT.requested_folds(wildcards.dataset, wildcards.pipeline),
        planned_folds=lambda wildcards: len(EXPERIMENT.planned_folds(wildcards.dataset)),
        configuration=lambda wildcards: EXPERIMENT.pipeline(wildcards.pipeline).prediction.configuration,
        candidates=lambda wildcards: EXPERIMENT.requested_configurations(
            wildcards.pipeline, plan_of(wildcards.dataset, wildcards.pipeline)
        ),
    message:
        "Select the best model of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/select_best.py"


rule determine_postprocessing:
    input:
        selection=selection_file,
        labels=winner_label_maps,
    output:
        rules=R / "postprocessing.json",
    log:
        LOGS / "determine_postprocessing/{pipeline}.log",
    benchmark:
        BENCHMARKS / "determine_postprocessing/{pipeline}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: threads_for(choice_of_postprocessing)
    resources:
        mem_mb=memory_mb(choice_of_postprocessing),
        runtime=minutes(choice_of_postprocessing),
    params:
        version=STAGE_VERSION["selection"],
        labels=declared_labels,
        reader=image_reader,
        postprocessing=lambda wildcards: EXPERIMENT.pipeline(wildcards.pipeline).selection.postprocessing,
        connectivity=lambda wildcards: EXPERIMENT.pipeline(wildcards.pipeline).selection.connectivity,
    message:
        "Determine the postprocessing of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/determine_postprocessing.py"
