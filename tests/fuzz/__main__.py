"""Run some inputs of one target, or repeat one: ``python -m tests.fuzz --target nifti --start 0 --count 100``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.runner import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz_findings"), help="folder for inputs that break something"
    )
    options = parser.parse_args()
    found = 0
    for name in options.target or TARGETS:
        outcome = fuzz(name, options.seed, options.start, options.count, options.keep.resolve() / name)
        found += len(outcome.findings)
        print(
            f"{name}: {outcome.inputs} inputs, {outcome.used} used, {outcome.refused} refused, slowest"
            f" {outcome.slowest_s:.2f} s, {outcome.peak_bytes >> 20} MiB, {outcome.wall_s:.1f} s"
        )
        for finding in outcome.findings:
            print(f"--- {finding}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
