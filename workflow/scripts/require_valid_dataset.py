"""Stop before planning if the dataset has errors, with all of them in one message."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.core.files import file_digest, write_json
    from segwright.inspection.checks import read_checks, require_valid

    path = Path(snakemake.input.checks)
    checks = read_checks(path)
    require_valid(checks)
    write_json(snakemake.output.valid, {"checks": file_digest(path), "reader": checks.reader})


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
