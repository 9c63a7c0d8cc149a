# Test images -> segmentations by the selected model, previous stages first.


rule inspect_test_batch:
    input:
        files=lambda wildcards: EXPERIMENT.test_batches(wildcards.dataset).files(wildcards.batch),
    output:
        records=D / "test/{batch}.json",
    log:
        LOGS / "inspect_test_batch/{batch}.log",
    benchmark:
        BENCHMARKS / "inspect_test_batch/{batch}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(test_inspection),
        runtime=minutes(test_inspection),
    params:
        version=STAGE_VERSION["inspection"],
        facts=lambda wildcards: EXPERIMENT.inspection_params(wildcards.dataset),
        cases=lambda wildcards: EXPERIMENT.test_batches(wildcards.dataset).case_ids(wildcards.batch),
        written=lambda wildcards: EXPERIMENT.test_batches(wildcards.dataset).written(wildcards.batch),
        store=lambda wildcards, output: str(Path(output.records).parent),
    message:
        "Inspect the test images of {wildcards.batch} of {wildcards.dataset}"
    script:
        "../scripts/inspect_test_batch.py"


rule predict_test:
    input:
        plan=slice_of("predict"),
        models=test_model_files("model.safetensors"),
        trainings=test_model_files("training.json"),
        records=D / "test/{batch}.json",
        previous=previous_test_predictions,
    output:
        predictions=R / "predictions/{configuration}/{batch}.json",
    log:
        LOGS / "predict_test/{pipeline}/{configuration}/{batch}.log",
    benchmark:
        BENCHMARKS / "predict_test/{pipeline}/{configuration}/{batch}.tsv"
    retries: 0
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=gpu_count,
        mem_mb=memory_mb(test_prediction),
        runtime=minutes(test_prediction),
    params:
        version=STAGE_VERSION["inference"],
        settings=lambda wildcards: EXPERIMENT.prediction_params(wildcards.pipeline),
        save_probabilities=test_probabilities,
        plugins=plugin_digests,
    message:
        "Predict the test images of {wildcards.batch} with {wildcards.configuration} ({wildcards.dataset})"
    script:
        "../scripts/predict_test.py"


rule finish_test:
    input:
        selection=selection_file,
        rules=R / "postprocessing.json",
        predictions=winner_test_predictions,
    output:
        manifest=R / "final/manifest.json",
    log:
        LOGS / "finish_test/{pipeline}.log",
    benchmark:
        BENCHMARKS / "finish_test/{pipeline}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: threads_for(finishing)
    resources:
        mem_mb=memory_mb(finishing),
        runtime=minutes(finishing),
    params:
        version=STAGE_VERSION["selection"],
        labels=declared_labels,
        reader=image_reader,
        save_probabilities=lambda wildcards: EXPERIMENT.pipeline(wildcards.pipeline).prediction.save_probabilities,
    message:
        "Finish the segmentations of the test images of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/finish_test.py"
