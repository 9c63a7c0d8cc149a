# Everything -> one self-contained HTML page.


rule report:
    input:
        checks=D + "/checks.json",
        fingerprint=D + "/dataset_fingerprint.json",
        plan=lambda wildcards: checkpoints.plan.get(**wildcards).output.plan + "/plans.json",
        trainings=all_fold_files("training.json"),
        summaries=candidate_summaries,
        selection=lambda wildcards: selection_file(wildcards),
        rules=R + "/postprocessing.json",
        final=lambda wildcards: final_manifest(wildcards),
        model=R + "/model.zip",
    output:
        html=report(
            R + "/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"dataset": "{dataset}", "pipeline": "{pipeline}"},
        ),
    log:
        LOGS + "/report/{pipeline}.log",
    benchmark:
        BENCHMARKS + "/report/{pipeline}.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    retries: 0
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        version=STAGE_VERSION["reporting"],
        title=SETTINGS.report.title,
        benchmarks=lambda wildcards: f"{RESULTS}/benchmarks/{wildcards.dataset}",
    message:
        "Report of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/report.py"
