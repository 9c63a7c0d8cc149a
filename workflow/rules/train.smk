# Stored cases -> weights, and what the weights say of the cases they have not seen.


localrules:
    collect_next_stage,


rule train_fold:
    input:
        plan=slice_of("train"),
        index=own_index,
        split=fold_split,
        previous=previous_stage_maps,
        initial_model=lambda wildcards: EXPERIMENT.pipeline(wildcards.pipeline).training.initial_model or [],
    output:
        model=ensure(R / "{configuration}/fold_{fold}/model.safetensors", non_empty=True),
        training=R / "{configuration}/fold_{fold}/training.json",
        progress=report(
            R / "{configuration}/fold_{fold}/progress.png",
            caption="../report/progress.rst",
            category="Training",
            labels={
                "dataset": "{dataset}",
                "pipeline": "{pipeline}",
                "configuration": "{configuration}",
                "fold": "{fold}",
            },
        ),
    log:
        LOGS / "train_fold/{pipeline}/{configuration}/fold_{fold}.log",
    benchmark:
        BENCHMARKS / "train_fold/{pipeline}/{configuration}/fold_{fold}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=gpu_count,
        mem_mb=training_memory_mb,
        runtime=EXECUTION.train_runtime_min,
    params:
        version=STAGE_VERSION["training"],
        settings=lambda wildcards: EXPERIMENT.training_params(wildcards.pipeline),
        plugins=plugin_digests,
    message:
        "Train {wildcards.configuration} fold {wildcards.fold} of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/train_fold.py"


rule predict_fold:
    input:
        plan=slice_of("predict"),
        model=R / "{configuration}/fold_{fold}/model.safetensors",
        training=R / "{configuration}/fold_{fold}/training.json",
        split=fold_split,
        index=own_index,
        next_indices=next_stage_indices,
        previous=previous_stage_maps,
    output:
        validation=R / "{configuration}/fold_{fold}/validation.json",
        probabilities=R / "{configuration}/fold_{fold}/probabilities.json",
        next_stage=R / "{configuration}/fold_{fold}/next_stage.json",
    log:
        LOGS / "predict_fold/{pipeline}/{configuration}/fold_{fold}.log",
    benchmark:
        BENCHMARKS / "predict_fold/{pipeline}/{configuration}/fold_{fold}.tsv"
    retries: 0
    conda:
        "../../envs/torch.yaml"
    threads: training_threads
    resources:
        gpu=gpu_count,
        mem_mb=memory_mb(fold_prediction),
        runtime=minutes(fold_prediction),
    params:
        version=STAGE_VERSION["inference"],
        settings=lambda wildcards: EXPERIMENT.prediction_params(wildcards.pipeline),
        save_probabilities=needs_probabilities,
        next_stages=next_stages,
        plugins=plugin_digests,
    message:
        "Predict the validation cases of {wildcards.configuration} fold {wildcards.fold} ({wildcards.dataset})"
    script:
        "../scripts/predict_fold.py"


rule collect_next_stage:
    input:
        folds=every_planned_fold("next_stage.json"),
    output:
        next_stage=R / "{configuration}/next_stage.json",
    log:
        LOGS / "collect_next_stage/{pipeline}/{configuration}.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    message:
        "Collect what {wildcards.configuration} gives the next stage ({wildcards.dataset})"
    script:
        "../scripts/collect_next_stage.py"
