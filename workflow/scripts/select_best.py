"""Select the configuration or ensemble with the best mean foreground Dice."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.selection.best import select_best

    select_best(
        [Path(path) for path in snakemake.input.summaries],
        candidates=snakemake.params.candidates,
        folds=snakemake.params.folds,
        planned_folds=snakemake.params.planned_folds,
        configuration=snakemake.params.configuration,
        output=Path(snakemake.output.selection) / "selection.json",
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
