"""Plan the configurations of one pipeline from the fingerprint, and cut the slices later stages read."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.configvalues import build
    from segwright.core.files import read_json
    from segwright.core.registry import load_plugins
    from segwright.core.settings import PlanningSettings, PreprocessingSettings
    from segwright.planning.planner import make_plans
    from segwright.planning.slices import write_plan_folder

    load_plugins(Job(snakemake).plugins)
    facts = read_json(snakemake.input.dataset_json)
    plans, reasons = make_plans(
        read_json(snakemake.input.fingerprint),
        facts,
        build(PlanningSettings, snakemake.params.planning, "planning"),
        dataset_name=snakemake.wildcards.dataset,
        reader=read_json(snakemake.input.valid)["reader"],
    )
    preprocessing = build(PreprocessingSettings, snakemake.params.preprocessing, "preprocessing")
    write_plan_folder(Path(snakemake.output.plan), plans, reasons, facts, preprocessing)


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
