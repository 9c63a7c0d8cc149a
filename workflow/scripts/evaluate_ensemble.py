"""Average the out-of-fold probabilities of two configurations and score the result."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.selection.ensembles import evaluate_ensemble

    members = [[Path(path) for path in files] for files in (snakemake.input.first, snakemake.input.second)]
    output = Path(snakemake.output.summary).parent
    evaluate_ensemble(members, Job(snakemake).dataset, snakemake.params.reader, output, workers=snakemake.threads)


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
