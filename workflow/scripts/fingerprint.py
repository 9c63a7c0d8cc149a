"""Merge the records of all cases into the dataset fingerprint."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.core.files import write_json
    from segwright.inspection.fingerprint import build_fingerprint

    batches = [Path(path) for path in snakemake.input.batches]
    write_json(snakemake.output.fingerprint, build_fingerprint(batches, Path(snakemake.params.store)))


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
