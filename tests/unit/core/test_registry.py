"""Registries and plugins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segwright.core.errors import SettingsError
from segwright.core.files import bytes_digest
from segwright.core.registry import Registry, load_plugins


def test_what_is_registered_is_found() -> None:
    registry: Registry[Callable[[], int]] = Registry("loss")

    @registry.register("mine")
    def mine() -> int:
        return 7

    assert registry.get("mine") is mine and mine() == 7
    registry.register("also")(lambda: 8)
    assert registry.names() == ("also", "mine")


def test_an_unknown_name_gets_the_known_ones_and_the_nearest() -> None:
    registry: Registry[int] = Registry("planner")
    registry.register("resenc")(1)
    registry.register("default")(2)
    with pytest.raises(SettingsError, match=r"there is no planner `resnc` \(known: default, resenc\); did you mean"):
        registry.get("resnc")
    with pytest.raises(SettingsError) as caught:
        registry.get("zzz")
    assert "did you mean" not in str(caught.value) and "name the plugin's file" in str(caught.value)


def test_a_name_is_taken_once_but_the_same_definition_may_come_again() -> None:
    registry: Registry[object] = Registry("loss")

    def make(name: str) -> type:
        return type(name, (), {"__qualname__": name})

    registry.register("a")(make("A"))
    newer = make("A")  # the plugin's file loaded again
    registry.register("a")(newer)
    assert registry.get("a") is newer
    with pytest.raises(SettingsError, match="the loss `a` exists already"):
        registry.register("a")(make("B"))


PLUGIN = """
from segwright.core.registry import Registry
LOADED = []
REGISTRY = Registry("test")
REGISTRY.register("thing")(lambda: 1)
"""


def test_plugins_are_loaded_once_and_digested(tmp_path: Path) -> None:
    path = tmp_path / "my-losses.py"
    counter = tmp_path / "count"
    path.write_text(PLUGIN + f"open({str(counter)!r}, 'a').write('x')\n")
    assert load_plugins([path]) == {"my-losses.py": bytes_digest(path.read_bytes())} == load_plugins([str(path)])
    assert counter.read_text() == "x"
    path.write_text(path.read_text() + "# changed\n")
    load_plugins([path])
    assert counter.read_text() == "xx"
    assert load_plugins([]) == {}


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.py", "the file does not exist"), ("x.txt", "not a Python file")]
)
def test_what_is_no_plugin_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(SettingsError, match=message):
        load_plugins([tmp_path / name])


def test_a_broken_plugin_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "mended.py"
    path.write_text("1 / 0\n")
    for _ in range(2):  # not remembered as loaded
        with pytest.raises(SettingsError, match=r"plugin .*mended\.py: cannot be loaded \(ZeroDivisionError: division"):
            load_plugins([path])
    path.write_text("def half(:\n")
    with pytest.raises(SettingsError, match="SyntaxError"):
        load_plugins([path])
    path.write_text("x = 1\n")
    assert list(load_plugins([path])) == ["mended.py"]
