"""Package the selected models with all that predicting needs, as a folder and as an archive."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.sharing.package import package_model

    package_model(
        Path(snakemake.output.model),
        Path(snakemake.output.archive),
        plans=Path(snakemake.input.plan),
        dataset_json=Path(snakemake.input.dataset_json),
        selection=Path(snakemake.input.selection),
        postprocessing=Path(snakemake.input.rules),
        summaries=[Path(path) for path in snakemake.input.summaries],
        slices=[Path(path) for path in snakemake.input.slices],
        models=[Path(path) for path in snakemake.input.models],
        trainings=[Path(path) for path in snakemake.input.trainings],
        prediction=snakemake.params.settings,
        plugins=snakemake.params.plugins,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
