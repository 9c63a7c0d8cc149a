"""Select the candidate with the best mean foreground Dice; without validation, say which one predicts."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.experiment import candidate_of
    from segwright.selection.best import select_best, select_without_validation

    output = Path(snakemake.output.selection) / "selection.json"
    settings = {
        "planned_folds": snakemake.params.planned_folds,
        "configuration": snakemake.params.configuration,
    }
    if not snakemake.input.summaries:
        select_without_validation(snakemake.params.candidates, output, **settings)
        return
    summaries = {candidate_of(path): Path(path) for path in snakemake.input.summaries}
    select_best(summaries, snakemake.params.candidates, output, folds=snakemake.params.folds, **settings)


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
