# What a run on a cluster needs besides its rules: hand on a warning signal, and leave no job behind.

import atexit
import os
import shutil
import signal
import subprocess

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

    @atexit.register
    def cancel_forgotten_jobs():
        """Ctrl-C while the executor asks SLURM for its jobs makes it forget them; all jobs of a run have one name."""
        run_name = getattr(getattr(workflow.scheduler, "_executor", None), "run_uuid", None)
        if run_name and shutil.which("scancel"):
            subprocess.run(["scancel", "--quiet", f"--name={run_name}"], check=False, timeout=60)
