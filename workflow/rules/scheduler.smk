# What a run on a cluster needs besides its rules: fail before anything is submitted where the cluster would refuse it,
# no retries in vain, hand on a warning signal, and leave no job behind.

import atexit
import logging
import os
import re
import shutil
import signal
import subprocess

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from segwright.slurm import SITE_RESOURCES, refused_for_good, require_accepted, site_options
from segwright.training.attempts import Attempts, command_id, slurm_command_id

STOP_BEFORE_TRAINING = {"inspect_all", "plan_all", "preprocess_all"}


def run_name():
    """The name of all SLURM jobs of this run; None without SLURM."""
    return getattr(getattr(workflow.scheduler, "_executor", None), "run_uuid", None)


# --- before anything is submitted --------------------------------------------------------------------------------------


def rules_to_submit():
    """Rules whose jobs are known by now; and all others, where a checkpoint may still bring them."""
    known = {job.rule for job in workflow.dag.needrun_jobs()}
    targets = {rule.name for rule in workflow.dag.targetrules}
    stops_early = targets <= STOP_BEFORE_TRAINING and not workflow.dag.targetfiles
    checkpoint_ahead = any(rule.is_checkpoint for rule in known)
    if checkpoint_ahead and not stops_early:
        known = set(workflow.rules)
    return [rule for rule in workflow.rules if rule in known and not workflow.is_local(rule)]


def asked_options(rule):
    """Options of a rule's jobs for `sbatch --test-only`; None where they are not known before the job is."""
    settings = workflow.executor_settings
    resources = {name: rule.resources.get(name) for name in SITE_RESOURCES}
    chosen_by_executor = settings.partition_config or os.environ.get("SNAKEMAKE_SLURM_PARTITIONS")
    expressions = [str(resource.raw) for resource in resources.values()]
    if chosen_by_executor or any(re.search(r"\b(wildcards|input|attempt|threads)\b", text) for text in expressions):
        return None
    situation = {"input": [], "attempt": 1, "threads": 1, "rulename": rule.name, "async_run": workflow.async_run}
    values = {name: resource.evaluate(None, **situation).value for name, resource in resources.items()}
    return site_options(values, settings.qos, settings.reservation)


def require_accepted_options():
    """sbatch takes what the profile says of this site, as far as it can be asked."""
    if workflow.executor_plugin.name == "slurm":
        with one_message():
            options_of = {rule.name: asked_options(rule) for rule in rules_to_submit()}
            require_accepted({rule: options for rule, options in options_of.items() if options is not None})


# --- while it runs -----------------------------------------------------------------------------------------------------


class NoRetryInVain(logging.Handler):
    """Takes its remaining attempts from a failed training whose next one could only fail in the same way.

    Snakemake says that a job failed and then compares the job's `attempt` with `retries`, which belong to the rule and
    so to all folds. It has no other place where a workflow could end the retries of one job.
    """

    def emit(self, record):
        if getattr(record, "event", None) == LogEvent.JOB_ERROR and record.rule_name.endswith("train_fold"):
            try:
                self.judge(record.jobid, record.rule_msg or "")
            except Exception:  # an error raised here would keep Snakemake from learning that the job failed
                self.handleError(record)

    def judge(self, number, message):
        job = next(job for job in list(workflow.dag.jobs) if workflow.dag.jobid(job) == number)
        reason = self.in_vain(job, message)
        if reason and job.attempt <= job.restart_times:
            job.attempt = job.restart_times + 1
            logger.error(f"Job {number} is not tried again. {reason}")

    def in_vain(self, job, message):
        if refused_for_good(message):
            return "It would be refused again; correct the profile and give the command again."
        command = slurm_command_id(run_name()) if run_name() else command_id()
        return Attempts(Path(job.output.model).parent / "state").hopeless(command)


if workflow.remote_exec:
    # A warning before the time limit (`sbatch --signal=USR1@300`) reaches only the first process of a job step, where
    # SLURM tracks processes by control groups. That is Snakemake: it hands the signal on, and the shell between it and
    # the training must survive it. (SIGTERM it keeps for itself; the training's own deadline needs no signal at all.)

    def hand_on_signal(number, frame):
        signal.signal(number, signal.SIG_IGN)
        os.killpg(os.getpgrp(), number)

    signal.signal(signal.SIGUSR1, hand_on_signal)
    shell.prefix("trap '' USR1; ")

elif workflow.is_main_process:
    logger.addHandler(NoRetryInVain())

    @atexit.register
    def cancel_forgotten_jobs():
        """Ctrl-C while the executor asks SLURM for its jobs makes it forget them; all jobs of a run have one name."""
        if run_name() and shutil.which("scancel"):
            subprocess.run(["scancel", "--quiet", f"--name={run_name()}"], check=False, timeout=60)
