"""Ensemble the members' test predictions, apply the postprocessing and write the final segmentations."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.files import read_json
    from segwright.selection.finish import finish_test

    manifests = [Path(path) for path in snakemake.input.predictions]
    members = read_json(snakemake.input.selection)["members"]
    finish_test(
        [[path for path in manifests if path.parent.name == member] for member in members],
        Path(snakemake.input.rules),
        Job(snakemake).dataset.file_ending,
        snakemake.params.reader,
        Path(snakemake.output.manifest).parent,
        save_probabilities=snakemake.params.save_probabilities,
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
