"""Package the selected models with all that predicting needs, as a folder and as an archive."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.core.configvalues import build
    from segwright.core.settings import PredictionSettings
    from segwright.experiment import candidate_of
    from segwright.sharing.package import ConfigurationFiles, FoldFiles, package_model

    models = [Path(path) for path in snakemake.input.models]
    configurations = []
    for path in map(Path, snakemake.input.slices):
        name = path.name.removesuffix(".predict.json")
        folds = [
            FoldFiles(model.parent.name.removeprefix("fold_"), model, model.with_name("training.json"))
            for model in models
            if model.parent.parent.name == name
        ]
        configurations.append(ConfigurationFiles(name, path, folds))
    package_model(
        Path(snakemake.output.model),
        Path(snakemake.output.archive),
        plans=Path(snakemake.input.plan),
        dataset_json=Path(snakemake.input.dataset_json),
        configurations=configurations,
        selection=Path(snakemake.input.selection),
        postprocessing=Path(snakemake.input.rules),
        prediction=build(PredictionSettings, snakemake.params.settings, "prediction"),
        summaries={candidate_of(path): Path(path) for path in snakemake.input.summaries},
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
