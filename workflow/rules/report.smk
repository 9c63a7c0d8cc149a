# Everything -> one self-contained HTML page.


rule report:
    input:
        checks=D / "checks.json",
        fingerprint=D / "dataset_fingerprint.json",
        plan=plan_file("plans.json"),
        trainings=all_fold_files("training.json"),
        summaries=candidate_summaries,
        selection=selection_file,
        rules=R / "postprocessing.json",
        final=final_manifest,
        model=R / "model.zip",
    output:
        html=report(
            R / "report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"dataset": "{dataset}", "pipeline": "{pipeline}"},
        ),
    log:
        LOGS / "report/{pipeline}.log",
    benchmark:
        BENCHMARKS / "report/{pipeline}.tsv"
    retries: 0
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=memory_mb(reporting),
        runtime=minutes(reporting),
    params:
        version=STAGE_VERSION["reporting"],
        title=SETTINGS.report.title,
        benchmarks=lambda wildcards: f"{RESULTS}/benchmarks/{wildcards.dataset}",
    message:
        "Report of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/report.py"
