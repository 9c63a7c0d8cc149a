"""Ensemble the members' test predictions, apply the postprocessing and write the final segmentations."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.files import read_json
    from segwright.selection.finish import finish_test

    finish_test(
        read_json(snakemake.input.selection)["members"],
        [Path(path) for path in snakemake.input.predictions],
        Path(snakemake.input.rules),
        Job(snakemake).dataset,
        Path(snakemake.output.manifest),
        save_probabilities=snakemake.params.save_probabilities,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
