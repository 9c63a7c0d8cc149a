"""What every script of the workflow shares: finding the library, logging, and showing a user's mistake as one message.

Scripts find the library by this one mechanism: an installed ``segwright`` if there is one, else the ``src`` folder of
the checkout the script lies in. What never changes results (where the raw data lie, the device, the number of workers,
plugin paths) comes from the configuration through :class:`Job`; everything else stands in a script's inputs and params.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import segwright  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from segwright.core.configfile import load_settings
from segwright.core.dataset import Dataset, load_dataset
from segwright.core.errors import SegwrightError
from segwright.core.files import remove_leftovers, storage_error
from segwright.core.settings import ExecutionSettings

Snakemake = Any


class Job:
    """The parts of the configuration that say where and how to run, never what comes out."""

    def __init__(self, snakemake: Snakemake) -> None:
        settings = load_settings(snakemake.config)
        self.execution: ExecutionSettings = settings.execution
        self.plugins = tuple(Path(path) for path in settings.plugins)
        self._dataset_folder = settings.datasets[snakemake.wildcards.dataset].path

    @property
    def dataset(self) -> Dataset:
        return load_dataset(self._dataset_folder)


def run(main: Callable[[Snakemake], None], snakemake: Snakemake) -> None:
    """Run a script's ``main``: log to the rule's log file, and end with one message where a user can mend the cause."""
    log_file = Path(str(snakemake.log[0]))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setLevel(logging.INFO if snakemake.rule == "train_fold" else logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[to_terminal], force=True
    )
    logging.raiseExceptions = False  # a full disk cannot take the log either; one message on the terminal is enough
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(log_file, mode="a", encoding="utf-8")
        to_file.setFormatter(to_terminal.formatter)
        logging.getLogger().addHandler(to_file)
        main(snakemake)
        remove_leftovers(Path(path) for path in snakemake.output)  # of attempts at this job that were killed
        logging.info("%s finished", snakemake.rule)
    except SegwrightError as error:
        logging.error("%s", error)
        sys.exit(error.exit_code)
    except OSError as error:
        problem = storage_error(Path(str(error.filename or log_file)), error)
        if problem is None:
            logging.exception("%s failed", snakemake.rule)
            raise
        logging.error("%s", problem)
        sys.exit(problem.exit_code)
    except BaseException:
        logging.exception("%s failed", snakemake.rule)
        raise
