"""Stop before planning if the dataset has errors, with all of them in one message."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.inspection.checks import read_checks, require_valid

    from segwright.core.files import file_digest, write_json

    checks = Path(snakemake.input.checks)
    require_valid(read_checks(checks))
    write_json(snakemake.output.valid, {"checks": file_digest(checks)})


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
