"""Write the self-contained HTML report of one pipeline."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.reporting.report import write_report

    root = Path(snakemake.output.html).parent
    write_report(
        root,
        root.parent / "data",
        Job(snakemake).dataset,
        Path(snakemake.output.html),
        title=snakemake.params.title,
        benchmarks=Path(snakemake.params.benchmarks),
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
