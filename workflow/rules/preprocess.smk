# Raw cases -> stored cases, in content-addressed stores that pipelines share.


localrules:
    index_preprocessed,


rule preprocess_batch:
    input:
        inspection=D / "inspection/{batch}.json",
    output:
        batch=D / "preprocessed/{data_id}/{batch}.json",
    log:
        LOGS / "preprocess_batch/{data_id}/{batch}.log",
    benchmark:
        BENCHMARKS / "preprocess_batch/{data_id}/{batch}.tsv"
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(preprocessing),
        runtime=minutes(preprocessing),
    params:
        version=STAGE_VERSION["preprocessing"],
        plan=preprocess_slice,
        cases=lambda wildcards, output: str(Path(output.batch).parent / "cases"),
    message:
        "Preprocess {wildcards.batch} of {wildcards.dataset} for {wildcards.data_id}"
    script:
        "../scripts/preprocess_batch.py"


rule index_preprocessed:
    input:
        batches=lambda wildcards: batches_of(wildcards.dataset, index_of(wildcards.dataset, wildcards.data_id)),
    output:
        index=D / "preprocessed/{data_id}/index.json",
    log:
        LOGS / "index_preprocessed/{data_id}.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    message:
        "Index {wildcards.data_id} of {wildcards.dataset}"
    script:
        "../scripts/index_preprocessed.py"
