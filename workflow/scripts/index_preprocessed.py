"""Index a store: batch -> digest, the one file trainings depend on."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.preprocessing.batch import write_index

    write_index([Path(path) for path in snakemake.input.batches], Path(snakemake.output.index))


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
