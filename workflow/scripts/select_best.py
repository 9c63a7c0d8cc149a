"""Select the candidate with the best mean foreground Dice; without validation, say which one predicts."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.experiment import candidate_of
    from segwright.planned import read_configurations
    from segwright.selection.best import members_of, select_best, select_without_validation

    output = Path(snakemake.output.selection) / "selection.json"
    wanted, planned = snakemake.params.configuration, read_configurations(Path(snakemake.input.plan).parent)
    names = () if wanted is None else members_of(wanted)
    settings = {
        "planned_folds": snakemake.params.planned_folds,
        "configuration": wanted,
        # whether it may lack any was asked before this job
        "lacking": [name for name in names if name not in planned],
    }
    if not snakemake.input.summaries:
        select_without_validation(snakemake.params.candidates, output, **settings)
        return
    summaries = {candidate_of(path): Path(path) for path in snakemake.input.summaries}
    select_best(summaries, snakemake.params.candidates, output, folds=snakemake.params.folds, **settings)


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
