"""Write the self-contained HTML report of one pipeline."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.experiment import candidate_of
    from segwright.reporting.report import write_report
    from segwright.reporting.results import ResultFiles

    root = Path(snakemake.output.html).parent
    files = ResultFiles(
        root=root,
        data=root.parent / "data",
        trainings=[Path(path) for path in snakemake.input.trainings],
        summaries={candidate_of(path): Path(path) for path in snakemake.input.summaries},
        final=Path(snakemake.input.final) if snakemake.input.final else None,
    )
    write_report(
        files,
        Job(snakemake).dataset,
        Path(snakemake.output.html),
        title=snakemake.params.title,
        benchmarks=Path(snakemake.params.benchmarks),
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
