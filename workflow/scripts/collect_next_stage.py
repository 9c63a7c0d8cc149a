"""Collect the label maps that all folds made for the next stage: the only cascade input of a training."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.inference.next_stage import collect_next_stage

    collect_next_stage([Path(path) for path in snakemake.input.folds], Path(snakemake.output.next_stage))


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
