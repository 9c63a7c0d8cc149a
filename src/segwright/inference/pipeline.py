"""The loop over cases: prepared one ahead, predicted one after the other, exported behind, so that no device waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import TypeVar

from segwright.core.errors import DatasetError, ModelError, SegwrightError
from segwright.core.progress import progress

Prepared = TypeVar("Prepared")
Predicted = TypeVar("Predicted")


def run_cases(
    title: str,
    case_ids: Sequence[str],
    prepare: Callable[[str], Prepared],
    predict: Callable[[str, Prepared], Predicted],
    export: Callable[[str, Predicted], None],
    workers: int,
    keep_going: bool = False,
) -> None:
    """Take every case through the three steps. ``predict`` always runs in this thread, in order.

    Args:
        workers: 1 does everything one after the other; with more the next case is prepared and finished ones are
            exported meanwhile. Results are the same.
        keep_going: a case that cannot be prepared or predicted does not keep the others from it. What would meet them
            all, an error of the model or one of writing, ends everything as ever.

    Raises:
        DatasetError: a step failed in a way a user can mend; names the case, with ``keep_going`` all such cases, once
            the others are done. Other errors keep their type.
    """
    failed: list[str] = []
    with progress(title, len(case_ids)) as bar, Exporter(workers) as exporter:
        for case_id, prepared in _ahead(case_ids, prepare, workers):
            try:
                with naming_case(case_id):
                    predicted = predict(case_id, prepared())
            except DatasetError as problem:
                if not keep_going or isinstance(problem.__cause__, ModelError):
                    raise
                failed.append(str(problem))
            else:
                exporter.submit(case_id, partial(export, case_id, predicted))
                del predicted  # only what waits for its export holds scores
            del prepared
            bar.advance(case_id)
    if failed:
        others = f"; the other {len(case_ids) - len(failed)} are done" if len(failed) < len(case_ids) else ""
        raise DatasetError(
            f"{title}: {len(failed)} of {len(case_ids)} cases failed{others}. Mend or remove them and run again, which"
            " makes only what is missing:\n" + "\n".join(failed)
        )


class naming_case:
    """Context that makes every error say which case it met. A user's mistake or a full disk becomes one message."""

    def __init__(self, case_id: str) -> None:
        self._case_id = case_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, (SegwrightError, OSError)):
            raise DatasetError(f"case {self._case_id}: {error}") from error
        if error is not None:
            error.add_note(f"(case {self._case_id})")


class Exporter:
    """Runs the exports of cases beside the prediction of the next ones; the first error ends everything.

    Threads are enough: compressing, writing and numpy's array work release Python's lock. A case waits only
    where every thread is busy, because each holds its scores in memory.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers - 1, "export") if workers > 1 else None
        self._waiting: deque[Future[None]] = deque()
        self._limit = workers - 1  # an export for every thread; nothing waits in memory behind them

    def __enter__(self) -> Exporter:
        return self

    def submit(self, case_id: str, export: Callable[[], None]) -> None:
        """Run ``export`` now or soon.

        Raises:
            DatasetError: this or an earlier export failed in a way a user can mend; names its case.
        """
        if self._pool is None:
            _export(case_id, export)
            return
        while len(self._waiting) >= self._limit or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(_export, case_id, export))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._waiting:
                future.result()


def _export(case_id: str, export: Callable[[], None]) -> None:
    with naming_case(case_id):
        export()


def _ahead(
    case_ids: Sequence[str], prepare: Callable[[str], Prepared], workers: int
) -> Iterator[tuple[str, Callable[[], Prepared]]]:
    """Every case with a call that gives what ``prepare`` makes, or raises; the next is under way while one is used."""
    if workers < 2:
        for case_id in case_ids:
            yield case_id, partial(prepare, case_id)
        return
    with ThreadPoolExecutor(1, "prepare") as pool:
        coming = pool.submit(prepare, case_ids[0]) if case_ids else None
        for number, case_id in enumerate(case_ids):
            assert coming is not None
            prepared = coming
            wait([prepared])  # only then the next one is begun: no queue in memory
            following = case_ids[number + 1 : number + 2]
            coming = pool.submit(prepare, following[0]) if following else None
            yield case_id, prepared.result
            del prepared
