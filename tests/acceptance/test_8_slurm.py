"""SLURM again, at length: what takes minutes, needs accounting, or is rare. `make test-slurm` has the rest."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segwright.phantom import make_phantom
from tests.acceptance.recorder import Check
from tests.slurm.cluster import Cluster, cgroups_available, running_cluster
from tests.slurm.configuration import Layout
from tests.slurm.conftest import CLUSTER_VARIABLE, data, prepared, reference_weights, shared_folder, slurm_project
from tests.slurm.project import EPOCHS, MODEL, NAME, SlurmProject, tiny_config

__all__ = ["data", "prepared", "reference_weights", "shared_folder", "slurm_project"]
pytestmark = [pytest.mark.acceptance, pytest.mark.slurm, pytest.mark.timeout(3000)]

Make = Callable[..., SlurmProject]
Open = Callable[[str, str], Check]
PARTITIONS = ("memory", "time", "requeue", "drain", "arrays", "accounts", "four", "gres", "model", "preempt")


def long_layout() -> Layout:
    return Layout(
        dict.fromkeys(PARTITIONS, 2),
        shared={"spare": "preempt"},
        accounting=True,
        cgroups=cgroups_available(),
        grace_min=0,
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a database; one that runs already is used."""
    if os.environ.get(CLUSTER_VARIABLE):
        yield Cluster(Path(os.environ[CLUSTER_VARIABLE]), long_layout())
        return
    if os.geteuid() != 0:
        pytest.skip("only root can start a SLURM cluster")
    with running_cluster(tmp_path_factory.mktemp("cluster"), long_layout()) as own:
        yield own


def test_out_of_memory_is_retried_with_more(
    check: Open, slurm_project: Make, cluster: Cluster, reference_weights: str
) -> None:
    if not cluster.layout.cgroups:
        pytest.skip("without control groups SLURM enforces no memory")
    project = slurm_project("memory", train_mem_mb=500)
    (project.folder / "appetite").write_text("900")
    row = check("8 slurm: out of memory", "a training that needs 900 MB beside the program, in a job of 500 MB")
    with row.measured():
        project.start(MODEL).must_succeed(900)
    jobs = project.jobs("train_fold")
    asked = [job.memory_mb for job in jobs]
    assert asked == [500 * 2**number for number in range(len(jobs))] and len(jobs) > 1
    assert {job.state for job in jobs[:-1]} <= {"OUT_OF_MEMORY", "FAILED"} and jobs[-1].state == "COMPLETED"
    assert project.weights() == reference_weights
    row.say(
        f"killed by the kernel {len(jobs) - 1} times; asked for {', '.join(map(str, asked))} MB; weights as undisturbed"
    )


def test_time_limit_without_warning(check: Open, slurm_project: Make, reference_weights: str) -> None:
    project = slurm_project("time", train_runtime_min=1, deadline="never")
    project.set_pace(3)
    row = check("8 slurm: time limit", "a training without a deadline of its own in jobs of 1 min")
    with row.measured():
        project.start(MODEL).must_succeed(1500)
    jobs, attempts = project.jobs("train_fold"), project.attempts()
    assert [job.state for job in jobs] == ["TIMEOUT"] * (len(jobs) - 1) + ["COMPLETED"] and len(jobs) > 1
    assert all(one["epochs_at_end"] == next_["epochs_at_start"] > 0 for one, next_ in itertools.pairwise(attempts))
    assert project.weights() == reference_weights
    row.say(f"{len(jobs) - 1} jobs ended by SLURM; no saved epoch lost; weights as undisturbed")


def test_slurm_requeues_by_itself(check: Open, slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    project = slurm_project("requeue")
    project.set_pace(1)
    row = check("8 slurm: requeue", "slurm-requeue instead of slurm-no-requeue; the node of a training crashes")
    with row.measured():
        run = project.start(MODEL, slurm_no_requeue=None, slurm_requeue=True)
        project.wait_for("two epochs", lambda: project.saved_epochs() >= 2, 300)
        first = project.active_jobs()[0].node
        cluster.crash_node(first)
        saved = project.saved_epochs()
        project.set_pace(0)
        run.must_succeed(900)
    (job,) = project.jobs("train_fold")
    assert job.state == "COMPLETED" and job.facts["Restarts"] == "1" and job.node != first
    assert [attempt["epochs_at_start"] for attempt in project.attempts()] == [0, saved]
    assert project.weights() == reference_weights
    cluster.start_node(first)
    row.say("the same job ran again on the other node and went on; Snakemake noticed nothing; weights as undisturbed")


def test_drained_node(check: Open, slurm_project: Make, cluster: Cluster) -> None:
    project = slurm_project("drain")
    project.set_pace(1)
    row = check("8 slurm: drained node", "one of two nodes is drained while a fold trains on each")
    with row.measured():
        run = project.start("evaluate_all")
        project.wait_for(
            "an epoch, two jobs", lambda: project.saved_epochs() >= 1 and len(project.active_jobs()) == 2, 300
        )
        drained, other = (job.node for job in project.active_jobs())
        cluster.call("scontrol", "update", f"NodeName={drained}", "State=DRAIN", "Reason=test")
        project.set_pace(0)
        run.must_succeed(900)
        cluster.call("scontrol", "update", f"NodeName={drained}", "State=RESUME")
    assert {job.state for job in project.jobs()} == {"COMPLETED"} and len(project.jobs("train_fold")) == 2
    assert {job.node for job in project.jobs() if job.rule != "train_fold"} == {other}
    row.say(f"the running training finished there, {len(project.jobs()) - 2} later jobs went to the other node")


def test_arrays(check: Open, tmp_path: Path, data: Path, cluster: Cluster) -> None:
    config = tiny_config(data)
    config["datasets"][NAME]["batches"] = 8
    project = SlurmProject(tmp_path / "work", config, cluster, "arrays")
    row = check("8 slurm: arrays", "slurm-array-jobs: inspect_batch, preprocess_batch")
    try:
        with row.measured():
            project.start("preprocess_all", slurm_array_jobs="inspect_batch,preprocess_batch").must_succeed(900)
        for rule in ("inspect_batch", "preprocess_batch"):
            jobs = project.jobs(rule)
            assert len(jobs) > 1 and {job.state for job in jobs} == {"COMPLETED"}
            assert len({job.facts["ArrayJobId"] for job in jobs}) == 1
            row.say(f"{rule}: {len(jobs)} jobs by one sbatch")
    finally:
        project.end()


def test_accounting(check: Open, slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    project = slurm_project("accounts")
    row = check("8 slurm: accounting", "slurm_account set; a wrong one; slurm-status-command sacct; efficiency report")
    resources = {"slurm_partition": "accounts", "mem_mb": 2000, "runtime": 60}
    with row.measured():
        wrong = project.start("preprocess_all", MODEL, default_resources={**resources, "slurm_account": "nobody"})
        assert wrong.wait(120) == 1 and project.jobs() == []
        assert wrong.output.count("Invalid account or account/partition combination specified") == 1
        right = project.start(
            MODEL, default_resources={**resources, "slurm_account": "lab"}, slurm_status_command="sacct",
            slurm_efficiency_report=True,
        )  # fmt: skip
        right.must_succeed(600)
    (job,) = project.jobs()
    assert job.facts["Account"] == "lab" and project.weights() == reference_weights
    assert job.id in cluster.call("sacct", "-n", "-X", "-o", "JobID,State", "-j", job.id)
    assert list(project.folder.glob("efficiency_report_*"))
    row.say("a wrong account is refused once and before anything is submitted")


@pytest.mark.parametrize(
    ("partition", "what", "sent"),
    [("gres", {"gpu": 0, "gres": "gpu:1"}, "gres:gpu:1"), ("model", {"gpu_model": "made_up"}, "gres:gpu:made_up:1")],
)
def test_gpus_as_a_site_wants_them(
    check: Open, slurm_project: Make, reference_weights: str, partition: str, what: dict[str, object], sent: str
) -> None:
    project = slurm_project(partition)
    project.set_pace(1)
    row = check(f"8 slurm: GPU by {partition}", f"set-resources: train_fold: {what}")
    with row.measured():
        run = project.start(MODEL, set_resources={"train_fold": what})
        project.wait_for("an epoch", lambda: project.saved_epochs() >= 1, 300)
        visible = project.trainer().environ().get("CUDA_VISIBLE_DEVICES")
        project.set_pace(0)
        run.must_succeed(600)
    (job,) = project.jobs()
    assert (job.gpus, visible) == (sent, "0") and project.weights() == reference_weights
    row.say(f"SLURM booked {job.gpus}; the training saw CUDA_VISIBLE_DEVICES={visible}")


def test_preempted_training_goes_on(check: Open, slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    """Jobs of another partition take both GPUs away; SLURM puts the training back into the queue."""
    project = slurm_project("spare")
    project.set_pace(1)
    row = check("8 slurm: preemption", "PreemptMode=REQUEUE, slurm-requeue; another partition's jobs take both nodes")
    with row.measured():
        run = project.start(MODEL, slurm_no_requeue=None, slurm_requeue=True)
        project.wait_for("two epochs", lambda: project.saved_epochs() >= 2, 300)
        trainer = project.trainer()
        for _ in range(2):
            cluster.call("sbatch", "-p", "preempt", "--gpus=1", "-t", "1", "--wrap", "sleep 20")
        project.wait_for("it is preempted", lambda: project.jobs()[0].facts["Restarts"] == "1", 120)
        project.wait_until_gone(trainer)
        saved = project.saved_epochs()
        project.set_pace(0)
        run.must_succeed(900)
    (job,) = project.jobs("train_fold")
    assert job.state == "COMPLETED"
    assert [attempt["epochs_at_start"] for attempt in project.attempts()] == [0, saved]
    assert project.weights() == reference_weights
    row.say(f"preempted after {saved} of {EPOCHS} epochs, went on as the same job; weights as undisturbed")


def test_all_four_configurations(check: Open, tmp_path: Path, cluster: Cluster) -> None:
    raw = tmp_path / "data" / NAME
    make_phantom("large", 4, seed=1, output=raw, test_cases=1)
    config = tiny_config(raw)
    config["datasets"][NAME]["batches"] = 2
    config["defaults"] = {
        "planning": {"gpu_memory_gb": 0.03, "base_features": 8, "max_stages": 4},
        "training": {"schedule": "smoke", "torch_threads": 1},
        "prediction": {"mirroring": False},
    }
    project = SlurmProject(tmp_path / "work", config, cluster, "four")
    row = check(
        "8 slurm: four configurations", "large phantoms, 2d, 3d_fullres, 3d_lowres, cascade, ensembles; 2 folds"
    )
    try:
        with row.measured():
            started = time.monotonic()
            project.start().must_succeed(2400)
            took_s = time.monotonic() - started
        jobs = project.jobs()
        trained = {job.facts["Comment"].split(f"{NAME}_default_")[1][:-2] for job in jobs if job.rule == "train_fold"}
        assert trained == {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
        assert {job.state for job in jobs} == {"COMPLETED"}
        assert (project.folder / f"results/{NAME}/default/report.html").is_file()
        row.say(f"{len(jobs)} jobs in {took_s:.0f} s, none failed")
    finally:
        project.end()
