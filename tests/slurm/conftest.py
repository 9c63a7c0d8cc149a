"""One cluster for all tests, and the projects that run on it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segwright.phantom import make_phantom
from tests.slurm.cluster import Cluster, cgroups_available, running_cluster
from tests.slurm.configuration import Layout
from tests.slurm.project import MODEL, SlurmProject, tiny_config

CLUSTER_VARIABLE = "SEGWRIGHT_TEST_CLUSTER"
"""Folder of a running cluster, set by tests/slurm/run.py; without it the tests start their own."""
PARTITIONS = ("whole", "deadline", "cancel", "crash", "interrupt", "local", "signals", "hopeless", "questions")
"""Two nodes each, so that tests running at the same time do not disturb each other."""

Make = Callable[..., SlurmProject]


def cluster_layout() -> Layout:
    return Layout(dict.fromkeys(PARTITIONS, 2), cgroups=cgroups_available())


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of `make test-slurm`, or one of our own; it is an error when it does not start."""
    running = os.environ.get(CLUSTER_VARIABLE)
    if running:
        yield Cluster(Path(running), cluster_layout())
        return
    with running_cluster(tmp_path_factory.mktemp("cluster"), cluster_layout()) as own:
        yield own


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def data(shared_folder: Path) -> Path:
    folder = shared_folder / "data" / "Dataset900_Phantom"
    with _alone(shared_folder / "data.lock"):
        if not folder.is_dir():
            make_phantom("2d", 4, seed=1, output=folder, test_cases=1)
    return folder


@pytest.fixture(scope="session")
def prepared(shared_folder: Path, data: Path, cluster: Cluster) -> tuple[SlurmProject, str]:
    """Results made on this machine up to the preprocessed cases, and the digest of fold 0 trained undisturbed."""
    project = SlurmProject(shared_folder / "prepared", tiny_config(data), cluster, "none")
    reference = SlurmProject(shared_folder / "reference", project.config, cluster, "none")
    with _alone(shared_folder / "prepared.lock"):
        if not (reference.folder / MODEL).is_file():
            project.start_locally("preprocess_all").must_succeed()
            reference = project.copy(reference.folder, "none")
            reference.start_locally(MODEL).must_succeed()
    return project, reference.weights()


@pytest.fixture
def slurm_project(tmp_path: Path, prepared: tuple[SlurmProject, str], request: pytest.FixtureRequest) -> Iterator[Make]:
    """A copy of the prepared project: ``slurm_project("cancel", **options of execution)``."""
    made: list[SlurmProject] = []

    def make(partition: str, **execution: Any) -> SlurmProject:
        made.append(prepared[0].copy(tmp_path / f"work_{len(made)}", partition, **execution))
        return made[-1]

    yield make
    for project in made:
        project.end()


@pytest.fixture
def reference_weights(prepared: tuple[SlurmProject, str]) -> str:
    return prepared[1]


class _alone:
    """One process at a time; the others wait."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)
