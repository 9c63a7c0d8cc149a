# Fingerprint -> plans, with one small slice a consumer.


localrules:
    plan,


checkpoint plan:
    input:
        dataset_json=dataset_json,
        valid=D / "valid.json",
        fingerprint=D / "dataset_fingerprint.json",
        splits=D / "splits",
        pinned=pinned_plans,
    output:
        plan=directory(R / "plan"),
    log:
        LOGS / "plan/{pipeline}.log",
    retries: 0
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        version=STAGE_VERSION["planning"],
        planning=lambda wildcards: to_plain(EXPERIMENT.pipeline(wildcards.pipeline).planning),
        preprocessing=lambda wildcards: to_plain(EXPERIMENT.pipeline(wildcards.pipeline).preprocessing),
        pinned=lambda wildcards: digests(pinned_plans(wildcards)),
        plugins=plugin_digests,
    message:
        "Plan {wildcards.pipeline} for {wildcards.dataset}"
    script:
        "../scripts/plan.py"
