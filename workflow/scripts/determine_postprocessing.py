"""Decide by cross-validation for which structures only the largest component is kept."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.selection.postprocessing import determine_postprocessing, write_no_postprocessing

    output = Path(snakemake.output.rules)
    if not snakemake.params.postprocessing:
        write_no_postprocessing(output, "Postprocessing is switched off (selection.postprocessing).")
        return
    if not snakemake.input.labels:
        write_no_postprocessing(output, "The model was trained on all cases; nothing was held out to decide by.")
        return
    determine_postprocessing(
        [Path(path) for path in snakemake.input.labels],
        Job(snakemake).dataset,
        snakemake.params.reader,
        snakemake.params.connectivity,
        output,
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
