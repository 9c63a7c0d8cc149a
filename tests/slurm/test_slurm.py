"""The workflow on a real SLURM: what is asked for, and what happens when jobs end before their time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segwright.slurm import refusal
from tests.slurm.cluster import Cluster
from tests.slurm.project import EPOCHS, MODEL, SlurmProject, tiny_config

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(480)]

Make = Callable[..., SlurmProject]

ASKED = {
    # rule: CPUs, memory in MB (None: from the data), minutes, GPUs
    "inspect_batch": (1, None, 120, ""),
    "preprocess_batch": (1, None, 240, ""),
    "train_fold": (2, 1500, 1440, "gres:gpu:1"),
    "predict_fold": (2, None, 720, "gres:gpu:1"),
    "summarize_crossval": (4, None, 120, ""),
    "determine_postprocessing": (4, None, 240, ""),
    "inspect_test_batch": (1, None, 120, ""),
    "predict_test": (2, None, 720, "gres:gpu:1"),
    "finish_test": (4, None, 240, ""),
    "package_model": (1, 2000, 60, ""),
    "report": (1, 3000, 60, ""),
}


def test_crash_of_a_node_is_retried_on_the_other(slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    project = slurm_project("crash")
    project.set_pace(1)
    run = project.start(MODEL)
    project.wait_for("two epochs", lambda: project.saved_epochs() >= 2)
    first = project.active_jobs()[0]
    cluster.crash_node(first.node)
    saved = project.saved_epochs()
    project.set_pace(0)
    run.must_succeed()
    jobs = project.jobs("train_fold")
    assert [job.state for job in jobs] == ["NODE_FAIL", "COMPLETED"]
    assert jobs[1].node != first.node
    assert [attempt["epochs_at_start"] for attempt in project.attempts()] == [0, saved]
    assert project.weights() == reference_weights


def test_training_longer_than_its_time_limit(slurm_project: Make, reference_weights: str) -> None:
    project = slurm_project("deadline", train_runtime_min=1, deadline_margin_min=0.5)
    project.set_pace(2)
    started = time.monotonic()
    project.start(MODEL).must_succeed(420)
    took_s = time.monotonic() - started
    jobs, attempts = project.jobs("train_fold"), project.attempts()
    assert len(jobs) >= 3 and took_s > 60
    assert [job.state for job in jobs] == ["FAILED"] * (len(jobs) - 1) + ["COMPLETED"], "none by SLURM's time limit"
    assert [attempt["ended"] for attempt in attempts] == ["interrupted"] * (len(jobs) - 1) + ["finished"]
    assert all("before the time limit" in attempt["cause"] for attempt in attempts[:-1])
    starts, ends = ([attempt[f"epochs_at_{side}"] for attempt in attempts] for side in ("start", "end"))
    assert starts == [0, *ends[:-1]] and ends[-1] == EPOCHS
    assert project.weights() == reference_weights


def test_whole_workflow(tmp_path: Path, data: Path, cluster: Cluster) -> None:
    """From raw images to the report; what each rule asks for; a second run has nothing to do."""
    project = SlurmProject(tmp_path / "work", tiny_config(data), cluster, "whole")
    try:
        project.start().must_succeed(450)
        jobs = project.jobs()
        assert {job.rule for job in jobs} == set(ASKED)
        assert all(job.state == "COMPLETED" and job.facts["Partition"] == "whole" for job in jobs)
        for job in jobs:
            cpus, memory_mb, minutes, gpus = ASKED[job.rule]
            assert (int(job.facts["CPUs/Task"]), job.minutes, job.gpus) == (cpus, minutes, gpus), job.facts
            assert memory_mb in (None, job.memory_mb) and 600 <= job.memory_mb <= 3000, job.facts
        trainings = project.jobs("train_fold")
        assert len(trainings) == 2 and trainings[0].node != trainings[1].node
        assert max(job.interval[0] for job in trainings) < min(job.interval[1] for job in trainings), "not side by side"
        assert_one_job_a_gpu(project)
        again = project.start()
        again.must_succeed()
        assert not again.jobs and "Nothing to be done" in again.output and len(project.jobs()) == len(jobs)
    finally:
        project.end()


def assert_one_job_a_gpu(project: SlurmProject) -> None:
    with_gpu = [job for job in project.jobs() if job.gpus]
    for one in with_gpu:
        for other in with_gpu:
            if int(one.id) < int(other.id) and one.node == other.node:
                assert one.interval[1] <= other.interval[0], "two jobs on one GPU at the same time"


def test_cancelled_training_resumes(slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    project = slurm_project("cancel")
    project.set_pace(1)
    run = project.start(MODEL)
    project.wait_for("two epochs", lambda: project.saved_epochs() >= 2)
    trainer = project.trainer()
    assert trainer.environ()["CUDA_VISIBLE_DEVICES"] == "0"
    cluster.call("scancel", project.active_jobs()[0].id)
    project.wait_until_gone(trainer)
    saved = project.saved_epochs()
    project.set_pace(0)
    run.must_succeed()
    assert [job.state for job in project.jobs("train_fold")] == ["CANCELLED", "COMPLETED"]
    assert [attempt["epochs_at_start"] for attempt in project.attempts()] == [0, saved]
    assert project.weights() == reference_weights


def test_interrupted_snakemake_leaves_no_job_and_goes_on_here(slurm_project: Make, reference_weights: str) -> None:
    """Ctrl-C, then the same target on this machine with other cores."""
    project = slurm_project("interrupt")
    project.set_pace(1)
    run = project.start("train_all")
    project.wait_for("an epoch, two jobs", lambda: project.saved_epochs() >= 1 and len(project.active_jobs()) == 2)
    trainer = project.trainer()
    assert run.interrupt() < 30
    project.wait_for("no job is left", lambda: not project.active_jobs(), 15)
    project.wait_until_gone(trainer)
    assert {job.state for job in project.jobs("train_fold")} == {"CANCELLED"}
    saved = project.saved_epochs()
    project.set_pace(0)
    project.start_locally(MODEL, cores=2).must_succeed()
    assert project.attempts()[-1]["epochs_at_start"] == saved >= 1
    assert project.weights() == reference_weights


def test_results_made_here_go_on_under_slurm(slurm_project: Make, reference_weights: str) -> None:
    """A training begun on this machine is finished by a job; nothing that is there is made again."""
    project = slurm_project("local")
    project.set_pace(1)
    run = project.start_locally(MODEL)
    project.wait_for("an epoch", lambda: project.saved_epochs() >= 1)
    trainer = project.trainer()
    run.interrupt()
    project.wait_until_gone(trainer)
    saved = project.saved_epochs()
    project.set_pace(0)
    go_on = project.start(MODEL)
    go_on.must_succeed()
    assert go_on.jobs == {"train_fold": 1} and [job.rule for job in project.jobs()] == ["train_fold"]
    assert [attempt["epochs_at_start"] for attempt in project.attempts()] == [0, saved]
    assert project.weights() == reference_weights


@pytest.mark.parametrize("rules", ["all", "train_fold"])
def test_wrong_partition_fails_at_once(tmp_path: Path, data: Path, cluster: Cluster, rules: str) -> None:
    """Also where only trainings have it, which nobody has planned yet: before anything is inspected."""
    project = SlurmProject(tmp_path / "work", tiny_config(data), cluster, "nowhere" if rules == "all" else "whole")
    run = project.start(set_resources=None if rules == "all" else {rules: {"slurm_partition": "nowhere"}})
    assert run.wait(90) == 1
    assert run.output.count("invalid partition specified: nowhere") == 1
    assert ("SLURM refuses the jobs of train_fold:" in run.output) == (rules == "train_fold")
    assert project.jobs() == [] and not (project.folder / "results").exists()


def test_what_sbatch_refuses_is_known_before_and_nothing_else(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question says no to far more than a submission does; each answer here is compared with a real submission."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    name, node = "questions", cluster.layout.nodes_of("questions")[0]
    here = f"--partition={name}"

    def update(*what: str) -> None:
        cluster.call("scontrol", "update", *what)

    def refused(*options: str) -> bool:
        known = refusal(options) is not None
        submitted = cluster.call("sbatch", "--parsable", "--hold", *options, "--wrap=true", check=False).strip()
        if submitted:
            cluster.call("scancel", submitted)
        assert known == (submitted == ""), options
        return known

    accepted = ["--gpus=1", "--gres=gpu:1", "--nice=5", "--cpus-per-task=100", "--account=nobody", "--exclusive"]
    assert not any(refused(here, option) for option in accepted)
    wrong = ["--constraint=nothing", "--reservation=none", "--gres=tpu:1", "--exclude=nobody", "--strange"]
    assert all(refused(here, option) for option in wrong) and refused(f"{here},nowhere")
    update(f"PartitionName={name}", "MaxTime=10")
    assert not refused(here, "--time=20")
    nodes = ",".join(cluster.layout.nodes_of(name))
    update(f"NodeName={nodes}", "State=DRAIN", "Reason=test")
    assert not refused(here, "--gpus=1")
    update(f"NodeName={nodes}", "State=RESUME")
    update(f"PartitionName={name}", "State=DOWN")
    assert not refused(here)
    update(f"PartitionName={name}", "State=INACTIVE")
    assert refused(here)
    update(f"PartitionName={name}", "State=UP")
    start = ("starttime=now+1hour", "duration=60", "user=root", f"nodes={node}")
    cluster.call("scontrol", "create", "reservation", "ReservationName=later", *start)
    assert not refused(here, "--reservation=later")
    cluster.call("scontrol", "delete", "ReservationName=later")


def test_refused_submission_is_not_repeated(slurm_project: Make) -> None:
    """The question cannot tell a GPU model that no node has from drained nodes; the submission itself is refused."""
    project = slurm_project("whole")
    run = project.start(MODEL, set_resources={"train_fold": {"gpu_model": "dreamt_of"}})
    assert run.wait(120) == 1
    assert run.output.count("SLURM sbatch failed") == run.output.count("is not tried again") == 1


def test_hopeless_training_is_tried_three_times_by_each_command(slurm_project: Make) -> None:
    """As a site without --gpus and --cpus-per-task wants its jobs."""
    project = slurm_project("hopeless")
    (project.folder / "appetite").write_text("much")  # the loss cannot read this number
    resources = {"gpu": 0, "gres": "gpu:1", "cpus_per_task": "int(-1)", "slurm_extra": "'--nice=1 --mail-type=NONE'"}
    run = project.start(MODEL, set_resources={"train_fold": resources})
    assert run.wait(300) == 1
    jobs = project.jobs()
    assert [(job.state, job.gpus, job.facts["CPUs/Task"]) for job in jobs] == [("FAILED", "gres:gpu:1", "1")] * 3
    assert len(project.attempts()) == 3
    assert run.output.count("is not tried again") == run.output.count("last 3 attempts made no new epoch") == 1
    assert "ValueError: invalid literal for int()" in run.output
    again = project.start(MODEL, set_resources={"train_fold": resources})
    project.wait_for("a new command is tried", lambda: len(project.attempts()) == 4)
    again.interrupt()


def test_warning_signal_reaches_the_training(slurm_project: Make, cluster: Cluster, reference_weights: str) -> None:
    """What `sbatch --signal=USR1@300` sends before the time limit: the training saves and goes on in another job."""
    project = slurm_project("signals")
    project.set_pace(1)
    run = project.start(MODEL)
    project.wait_for("an epoch", lambda: project.saved_epochs() >= 1)
    cluster.call("scancel", "--signal=USR1", project.active_jobs()[0].id)
    project.wait_for("the job ended", lambda: project.jobs("train_fold")[0].state == "FAILED")
    project.set_pace(0)
    run.must_succeed()
    first, second = project.attempts()
    assert first["ended"] == "interrupted" and "SIGUSR1" in first["cause"]
    assert second["epochs_at_start"] == first["epochs_at_end"] >= 1
    assert project.weights() == reference_weights
