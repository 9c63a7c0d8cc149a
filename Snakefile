# segwright: from a folder of labelled images to a validated segmentation model.
#
# Everything is a file with one rule that makes it. The rules stand in workflow/rules/, one file a stage, in the order in
# which data flows; what each option means stands in config/config.yaml.
#
#   D = {results}/{dataset}/data        depends on the data only, shared by all pipelines
#   R = {results}/{dataset}/{pipeline}  depends on plans and training

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/planned.smk"
include: "workflow/rules/selected.smk"
include: "workflow/rules/scheduler.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/inspect.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/package.smk"
include: "workflow/rules/report.smk"


onstart:
    require_writable_results()
    warn_of_unknown_making()
    require_accepted_options()


localrules:
    all,
    inspect_all,
    plan_all,
    preprocess_all,
    train_all,
    evaluate_all,
    predict_all,
    report_all,


rule all:
    default_target: True
    input:
        everywhere(R / "model.zip"),
        everywhere(R / "report.html"),
        everywhere(R / "final/manifest.json", WITH_TESTS),
        every(ready_to_plan),
        every(trained),
        every(evaluated),
        every(predicted),


rule inspect_all:
    input:
        every(inspected),


rule plan_all:
    input:
        everywhere(R / "plan"),
        every(ready_to_plan),


rule preprocess_all:
    input:
        every(ready_to_plan),
        every(preprocessed),


rule train_all:
    input:
        every(ready_to_plan),
        every(trained),


rule evaluate_all:
    input:
        everywhere(R / "selection"),
        every(ready_to_plan),
        every(trained),
        every(evaluated),


rule predict_all:
    input:
        everywhere(R / "final/manifest.json", WITH_TESTS),
        every(ready_to_plan, WITH_TESTS),
        every(trained, WITH_TESTS),
        every(evaluated, WITH_TESTS),
        every(predicted, WITH_TESTS),


rule report_all:
    input:
        everywhere(R / "report.html"),
        every(ready_to_plan),
        every(trained),
        every(evaluated),
        every(predicted),
