# The selected models, their previous stages and their rules -> one folder and one archive that can predict.


rule package_model:
    input:
        plan=plan_file("plans.json"),
        dataset_json=dataset_json,
        selection=selection_file,
        rules=R / "postprocessing.json",
        summaries=candidate_summaries,
        slices=packaged_slices,
        models=packaged_files("model.safetensors"),
        trainings=packaged_files("training.json"),
    output:
        model=directory(R / "model"),
        archive=ensure(R / "model.zip", non_empty=True),
    log:
        LOGS / "package_model/{pipeline}.log",
    benchmark:
        BENCHMARKS / "package_model/{pipeline}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        version=STAGE_VERSION["sharing"],
        settings=lambda wildcards: EXPERIMENT.prediction_params(wildcards.pipeline),
        plugins=plugin_digests,
    message:
        "Package the model of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/package_model.py"
