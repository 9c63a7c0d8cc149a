"""Registries: networks, losses, augmentations and planners are looked up by name, and a user's plugin adds more.

A plugin is a Python file the user names in the configuration (``plugins: [my_losses.py]``) or on the command line.
Names that come from a data or model file are only ever looked up here; such a file never says what to import.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType
from typing import Generic, TypeVar

from segwright.core.errors import SegwrightError, SettingsError
from segwright.core.files import file_digest
from segwright.core.plugins import require_different_names

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an entry. A name can be taken only once, except by the same definition loaded again."""

        def add(entry: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and getattr(taken, "__qualname__", None) != getattr(entry, "__qualname__", ""):
                raise SettingsError(f"the {self.kind} `{name}` exists already; choose another name in the plugin")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The entry of this name.

        Raises:
            SettingsError: there is none; the message lists the known names and the nearest one.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise SettingsError(
                f"there is no {self.kind} `{name}` (known: {', '.join(sorted(self._entries))}){hint}"
                " If a plugin defines it, name the plugin's file"
            )
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._entries))


class _UncachedSource(importlib.machinery.SourceFileLoader):
    """Compiles a file each time: cached bytecode would hide an edit within a second that keeps the size."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_plugins(paths: Iterable[Path | str]) -> dict[str, str]:
    """Import the user's plugin files; returns file name -> digest, which becomes part of what was trained.

    Raises:
        SettingsError: a file does not exist, or fails while it is imported; or two have the same name.
    """
    files = [Path(path) for path in paths]
    require_different_names(files)
    digests: dict[str, str] = {}
    for path in files:
        if not path.is_file():
            raise SettingsError(f"plugin {path}: the file does not exist; correct `plugins`")
        digest = file_digest(path)
        module_name = f"segwright_plugin_{path.stem}_{digest[:8]}"
        if module_name not in sys.modules:
            loader = _UncachedSource(module_name, str(path))
            spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
            if path.suffix != ".py" or spec is None:
                raise SettingsError(f"plugin {path}: not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                loader.exec_module(module)
            except SegwrightError:
                del sys.modules[module_name]  # not remembered as loaded
                raise
            except Exception as error:  # the one place where somebody else's code runs: it may raise anything
                del sys.modules[module_name]
                text = f"{type(error).__name__}: {error}"
                raise SettingsError(f"plugin {path}: cannot be loaded ({text}); correct the file") from error
        digests[path.name] = digest
    return digests
