"""Imported by every Python of a workflow run whose PYTHONPATH names this folder: makes the job `split` slow."""

import sys
import time

if any(argument.endswith("split.py") for argument in sys.orig_argv):
    time.sleep(3)
