"""Plan the configurations of one pipeline from the fingerprint, and cut the slices later stages read."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.configfile import planning_settings, preprocessing_settings

    from segwright.core.files import read_json
    from segwright.core.registry import load_plugins
    from segwright.planning.planner import make_plans
    from segwright.planning.slices import write_plan_folder

    load_plugins(Job(snakemake).plugins)
    facts = read_json(snakemake.input.dataset_json)
    fingerprint = read_json(snakemake.input.fingerprint)
    plans, reasons = make_plans(
        fingerprint,
        facts,
        planning_settings(snakemake.params.planning),
        dataset_name=snakemake.wildcards.dataset,
        reader=fingerprint["segwright"]["reader"],
    )
    preprocessing = preprocessing_settings(snakemake.params.preprocessing)
    write_plan_folder(Path(snakemake.output.plan), plans, reasons, facts, preprocessing)


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
