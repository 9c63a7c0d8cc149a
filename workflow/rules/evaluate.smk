# Out-of-fold predictions -> summaries of single configurations and of ensembles.


rule summarize_crossval:
    input:
        validations=requested_fold_files("validation.json"),
    output:
        summary=R / "{configuration}/crossval/summary.json",
    log:
        LOGS / "summarize_crossval/{pipeline}/{configuration}.log",
    benchmark:
        BENCHMARKS / "summarize_crossval/{pipeline}/{configuration}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: threads_for(evaluation)
    resources:
        mem_mb=memory_mb(evaluation),
        runtime=minutes(evaluation),
    params:
        version=STAGE_VERSION["evaluation"],
        labels=declared_labels,
        reader=image_reader,
    message:
        "Cross-validation summary of {wildcards.configuration} ({wildcards.dataset})"
    script:
        "../scripts/summarize_crossval.py"


rule evaluate_ensemble:
    input:
        first=ensemble_member(0, "probabilities.json"),
        second=ensemble_member(1, "probabilities.json"),
    output:
        summary=R / "ensembles/{ensemble}/summary.json",
        labels=R / "ensembles/{ensemble}/labels.json",
    log:
        LOGS / "evaluate_ensemble/{pipeline}/{ensemble}.log",
    benchmark:
        BENCHMARKS / "evaluate_ensemble/{pipeline}/{ensemble}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: threads_for(ensemble_evaluation)
    resources:
        mem_mb=memory_mb(ensemble_evaluation),
        runtime=minutes(ensemble_evaluation),
    params:
        version=STAGE_VERSION["selection"],
        labels=declared_labels,
        reader=image_reader,
    message:
        "Evaluate the ensemble {wildcards.ensemble} ({wildcards.dataset})"
    script:
        "../scripts/evaluate_ensemble.py"
