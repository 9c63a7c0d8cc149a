"""Do the same thing to many cases, in this thread or in several; results come in the order of the tasks.

Threads are enough and start at once: decompressing, counting and labelling components release Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from segwright.core.progress import progress

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Task], Result], tasks: Sequence[tuple[str, Task]], workers: int, title: str
) -> Iterator[tuple[str, Result]]:
    """Yield (case id, ``function(task)``) for every (case id, task); the first error ends the others."""
    with progress(title, len(tasks)) as bar:
        if min(workers, len(tasks)) <= 1:
            for case_id, task in tasks:
                yield case_id, function(task)
                bar.advance(case_id)
            return
        pool = ThreadPoolExecutor(min(workers, len(tasks)), "case")
        try:
            results = pool.map(function, [task for _, task in tasks])
            for (case_id, _), result in zip(tasks, results, strict=True):
                yield case_id, result
                bar.advance(case_id)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
