"""Cases are prepared ahead and exported behind; every error names its case."""

from __future__ import annotations

import threading

import pytest

from segwright.core.errors import DamagedFileError, DatasetError, ModelError, SegwrightError
from segwright.inference.pipeline import Exporter, naming_case, run_cases


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_case_passes_all_steps_in_order(workers: int, count: int) -> None:
    cases = [str(number) for number in range(count)]
    predicted: list[str] = []
    exported: dict[str, int] = {}

    def predict(case_id: str, prepared: int) -> int:
        predicted.append(case_id)
        return prepared + 1

    run_cases("test", cases, lambda case_id: int(case_id) * 10, predict, exported.__setitem__, workers)
    assert predicted == cases
    assert exported == {case_id: int(case_id) * 10 + 1 for case_id in cases}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_case_is_prepared_meanwhile(workers: int) -> None:
    second_prepared = threading.Event()

    def prepare(case_id: str) -> None:
        if case_id == "b":
            second_prepared.set()

    met: list[bool] = []
    run_cases(
        "test",
        ["a", "b"],
        prepare,
        lambda case_id, _: met.append(second_prepared.wait(5 if workers > 1 else 0)) if case_id == "a" else None,
        lambda *_: None,
        workers,
    )
    assert met == [workers > 1]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("step", ["prepare", "predict", "export"])
def test_an_error_in_any_step_names_the_case(step: str, workers: int) -> None:
    def fail_at(name: str) -> None:
        if step == name:
            raise DatasetError("broken")

    with pytest.raises(DatasetError, match="case a: broken"):
        run_cases(
            "test",
            ["a", "b"],
            lambda _: fail_at("prepare"),
            lambda *_: fail_at("predict"),
            lambda *_: fail_at("export"),
            workers,
        )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_other_cases_are_done_first_if_so_wanted(workers: int) -> None:
    exported: list[str] = []

    def prepare(case_id: str) -> str:
        if case_id in "ad":
            raise DamagedFileError(f"{case_id}.nii.gz", "truncated")
        return case_id

    def predict(case_id: str, _: str) -> None:
        if case_id == "c":
            raise DatasetError("too small")

    def export(case_id: str, _: None) -> None:
        exported.append(case_id)

    with pytest.raises(DatasetError) as caught:
        run_cases("predict", list("abcde"), prepare, predict, export, workers, keep_going=True)
    assert sorted(exported) == ["b", "e"]
    assert str(caught.value) == (
        "predict: 3 of 5 cases failed; the other 2 are done. Mend or remove them and run again, which makes only what"
        " is missing:\ncase a: a.nii.gz: truncated; delete it and run again\ncase c: too small\n"
        "case d: d.nii.gz: truncated; delete it and run again"
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("step", "error"),
    [("predict", ModelError("no memory")), ("export", OSError("full")), ("prepare", ValueError("bug"))],
)
def test_what_would_meet_every_case_ends_at_once(step: str, error: Exception, workers: int) -> None:
    begun: list[str] = []

    def fail_at(name: str, case_id: str) -> None:
        if name == "predict":
            begun.append(case_id)
        if name == step:
            raise error

    with pytest.raises((SegwrightError, ValueError)):
        run_cases(
            "predict",
            list("abcdef"),
            lambda case_id: fail_at("prepare", case_id),
            lambda case_id, _: fail_at("predict", case_id),
            lambda case_id, _: fail_at("export", case_id),
            workers,
            keep_going=True,
        )
    assert len(begun) <= 3


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_exports_run_and_errors_name_their_case(workers: int) -> None:
    done: list[int] = []
    with Exporter(workers) as exporter:
        for number in range(6):
            exporter.submit(str(number), lambda number=number: done.append(number))
    assert sorted(done) == list(range(6))

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DatasetError, match=r"case bad: .*No space left on device"), Exporter(workers) as exporter:
        exporter.submit("good", lambda: None)
        exporter.submit("bad", fail)


def test_no_case_waits_in_memory_behind_a_busy_export() -> None:
    gate = threading.Event()
    started: list[int] = []

    def export(number: int) -> None:
        started.append(number)
        gate.wait(5)

    with Exporter(2) as exporter:
        exporter.submit("0", lambda: export(0))
        second = threading.Thread(target=lambda: exporter.submit("1", lambda: export(1)))
        second.start()
        second.join(0.2)
        assert second.is_alive()  # the only export thread is busy
        gate.set()
        second.join(5)
    assert started == [0, 1]


def test_other_errors_keep_their_type() -> None:
    with pytest.raises(ZeroDivisionError) as caught, naming_case("a"):
        _ = 1 / 0
    assert caught.value.__notes__ == ["(case a)"]
    with pytest.raises(DatasetError, match=r"^case b: f: broken"), naming_case("b"):
        raise DamagedFileError("f", "broken")
