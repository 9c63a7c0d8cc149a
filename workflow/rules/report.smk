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
        # the worst cases as pictures: one image at a time, with two label maps and what reading them takes
        mem_mb=lambda wildcards: max(3000, SNAKEMAKE_MB + 1500 + int(3 * largest_case_mb(wildcards))),
        # three cases a structure, a minute for each gigabyte
        runtime=lambda wildcards: (
            60 + int(largest_case_mb(wildcards) / 300 * EXPERIMENT.datasets[wildcards.dataset].labels.num_outputs)
        ),
    params:
        version=STAGE_VERSION["reporting"],
        title=SETTINGS.report.title,
        benchmarks=lambda wildcards: f"{RESULTS}/benchmarks/{wildcards.dataset}",
    message:
        "Report of {wildcards.dataset} ({wildcards.pipeline})"
    script:
        "../scripts/report.py"
