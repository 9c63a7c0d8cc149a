# Raw images -> one record a case, all problems at once, the fingerprint and the folds.


localrules:
    collect_checks,
    require_valid_dataset,
    fingerprint,
    split,


rule inspect_batch:
    input:
        files=lambda wildcards: EXPERIMENT.training_batches(wildcards.dataset).files(wildcards.batch),
    output:
        records=D / "inspection/{batch}.json",
    log:
        LOGS / "inspect_batch/{batch}.log",
    benchmark:
        BENCHMARKS / "inspect_batch/{batch}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(inspection),
        runtime=minutes(inspection),
    params:
        version=STAGE_VERSION["inspection"],
        facts=lambda wildcards: EXPERIMENT.inspection_params(wildcards.dataset, wildcards.batch),
        cases=lambda wildcards: EXPERIMENT.training_batches(wildcards.dataset).case_ids(wildcards.batch),
        written=lambda wildcards: EXPERIMENT.training_batches(wildcards.dataset).written(wildcards.batch),
        store=lambda wildcards, output: str(Path(output.records).parent),
        batches=lambda wildcards: SETTINGS.datasets[wildcards.dataset].batches,
    message:
        "Inspect {wildcards.batch} of {wildcards.dataset}"
    script:
        "../scripts/inspect_batch.py"


rule collect_checks:
    input:
        dataset_json=dataset_json,
        batches=lambda wildcards: inspection_records(wildcards.dataset),
    output:
        json=D / "checks.json",
        tsv=D / "checks.tsv",
    log:
        LOGS / "collect_checks.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        version=STAGE_VERSION["inspection"],
    message:
        "Collect the checks of {wildcards.dataset}"
    script:
        "../scripts/collect_checks.py"


rule require_valid_dataset:
    input:
        checks=D / "checks.json",
    output:
        valid=D / "valid.json",
    log:
        LOGS / "require_valid_dataset.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    message:
        "Require that {wildcards.dataset} has no errors"
    script:
        "../scripts/require_valid_dataset.py"


rule fingerprint:
    input:
        valid=D / "valid.json",
        batches=lambda wildcards: inspection_records(wildcards.dataset),
    output:
        fingerprint=D / "dataset_fingerprint.json",
    log:
        LOGS / "fingerprint.log",
    benchmark:
        BENCHMARKS / "fingerprint.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        version=STAGE_VERSION["inspection"],
        store=lambda wildcards, input: str(Path(input.batches[0]).parent),
    message:
        "Fingerprint of {wildcards.dataset}"
    script:
        "../scripts/fingerprint.py"


rule split:
    input:
        valid=D / "valid.json",
        checks=D / "checks.json",
        batches=lambda wildcards: inspection_records(wildcards.dataset),
        tables=lambda wildcards: split_tables(wildcards.dataset),
    output:
        splits=directory(D / "splits"),
    log:
        LOGS / "split.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        version=STAGE_VERSION["splits"],
        splits=lambda wildcards: to_plain(SETTINGS.datasets[wildcards.dataset].splits),
        may_lack_folds=lambda wildcards: EXPERIMENT.trains_on_all_cases_only(wildcards.dataset),
        tables=lambda wildcards: digests(split_tables(wildcards.dataset)),
        case_table=lambda wildcards: SETTINGS.datasets[wildcards.dataset].case_table,
    message:
        "Folds of {wildcards.dataset}"
    script:
        "../scripts/split.py"
