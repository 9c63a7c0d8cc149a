"""Nothing that is read is ever executed: no unpickling, evaluating, importing by name, unsafe extracting, no shell.

A check of the syntax tree, so that comments and strings do not count and aliases (``import pickle as p``) do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "src" / "segwright").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")])

UNPICKLING = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "copyreg", "jsonpickle",
}  # fmt: skip
"""Modules nobody imports."""
ONLY_ERRORS = {"UnpicklingError", "PicklingError", "PickleError"}
CALLS = {
    **dict.fromkeys(("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"),
    "evaluates text"),
    **dict.fromkeys(("pandas.eval", "pandas.read_pickle", "numexpr.evaluate", "numpy.fromregex"),
    "evaluates or unpickles"),
    **dict.fromkeys(("__import__", "builtins.__import__", "importlib.import_module", "runpy.run_path",
    "runpy.run_module"),
                    "imports by name"),
    **dict.fromkeys(("importlib.util.spec_from_file_location", "importlib.util.module_from_spec"), "imports a file"),
    **dict.fromkeys(("pydoc.locate", "pkgutil.resolve_name", "importlib.util.find_spec"), "imports by name"),
    **dict.fromkeys(("shutil.unpack_archive", "tarfile.open", "tarfile.TarFile", "tarfile.TarFile.open"),
    "extracts unchecked"),
    **dict.fromkeys(("os.system", "os.popen", "os.spawnlp", "os.execl", "os.execv", "os.execvp", "pty.spawn",
                     "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
                     "runs a shell"),
    **dict.fromkeys(("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all",
                     "yaml.full_load_all"), "loads YAML that can make objects"),
    **dict.fromkeys(("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "torch.export.load"),
    "loads code"),
}  # fmt: skip
METHODS = {"extract": "extracts unchecked", "extractall": "extracts unchecked", "exec_module": "imports a file"}
"""Methods of any object: of zip and tar files, of module loaders."""
UNSAFE_LOADERS = {"yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader", "yaml.CUnsafeLoader"}
PROCESSES = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}

ALLOWED = {
    ("src/segwright/core/registry.py", "imports a file"): "the one loader of plugins, which the user names",
}
"""(file, what) -> why it may."""


@dataclass(frozen=True)
class Finding:
    what: str
    line: int
    text: str


def findings(code: str) -> list[Finding]:
    """Everything in a module that could execute what it reads."""
    tree = ast.parse(code)
    names = _imported_names(tree)
    found = [*_imports(tree)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [Finding(what, node.lineno, ast.unparse(node.func)) for what in _call(node, names)]
        elif isinstance(node, (ast.Attribute, ast.Name)) and _dotted(node, names) in UNSAFE_LOADERS:
            found.append(Finding("loads YAML that can make objects", node.lineno, ast.unparse(node)))
    return found


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Name in this module -> what it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _imports(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not {alias.name for alias in node.names} <= ONLY_ERRORS:
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            if UNPICKLING & set(module.split(".")):
                yield Finding("unpickles", node.lineno, module)


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    name = _dotted(node.func, names)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in CALLS:
        yield CALLS[name]
    elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield METHODS[node.func.attr]
    if name == "torch.load" and not _is(keywords.get("weights_only"), True):
        yield "unpickles"
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield "unpickles"
    if "shell" in keywords and not _is(keywords["shell"], False):
        yield "runs a shell"
    if name in PROCESSES and node.args and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
        yield "runs a shell"
    if name == "numpy.load" and "allow_pickle" not in keywords:
        yield "unpickles"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """``p.loads`` with ``import pickle as p`` is ``pickle.loads``; empty for anything computed."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *parts])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_executed(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = [finding for finding in findings(path.read_text()) if (name, finding.what) not in ALLOWED]
    assert not found, "\n".join(f"{name}:{finding.line}: {finding.what}: {finding.text}" for finding in found)


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 150


@pytest.mark.parametrize("place", ALLOWED)
def test_what_is_allowed_is_there(place: tuple[str, str]) -> None:
    name, what = place
    assert ALLOWED[place], "an exception needs its reason"
    assert what in {finding.what for finding in findings((ROOT / name).read_text())}, "remove this exception"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pickle\npickle.loads(b'')", "unpickles"),
        ("from pickle import loads", "unpickles"),
        ("import dill as json", "unpickles"),
        ("from six.moves import cPickle", "unpickles"),
        ("import joblib\njoblib.load('x')", "unpickles"),
        ("def f():\n    import shelve", "unpickles"),
        ("import marshal", "unpickles"),
        ("import torch\ntorch.load('x')", "unpickles"),
        ("import torch as t\nt.load('x', weights_only=False)", "unpickles"),
        ("import torch\ntorch.load('x', weights_only=flag)", "unpickles"),
        ("import numpy as np\nnp.load('x')", "unpickles"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "unpickles"),
        ("import pandas\npandas.read_pickle('x')", "evaluates or unpickles"),
        ("eval('1')", "evaluates text"),
        ("import builtins\nbuiltins.exec('1')", "evaluates text"),
        ("compile('1', '', 'eval')", "evaluates text"),
        ("import importlib\nimportlib.import_module(name)", "imports by name"),
        ("from importlib import import_module as load\nload(name)", "imports by name"),
        ("__import__(name)", "imports by name"),
        ("import runpy\nrunpy.run_path('x')", "imports by name"),
        ("import importlib.util\nimportlib.util.spec_from_file_location('a', 'b')", "imports a file"),
        ("spec.loader.exec_module(module)", "imports a file"),
        ("import zipfile\nzipfile.ZipFile('x').extractall('y')", "extracts unchecked"),
        ("import zipfile\nwith zipfile.ZipFile('x') as z:\n    z.extract('y')", "extracts unchecked"),
        ("import tarfile\ntarfile.open('x')", "extracts unchecked"),
        ("from shutil import unpack_archive\nunpack_archive('x')", "extracts unchecked"),
        ("import yaml\nyaml.load(text, Loader=yaml.SafeLoader)", "loads YAML that can make objects"),
        ("import yaml\nclass Mine(yaml.UnsafeLoader):\n    pass", "loads YAML that can make objects"),
        ("from yaml import FullLoader\nFullLoader(text)", "loads YAML that can make objects"),
        ("import os\nos.system('ls')", "runs a shell"),
        ("from os import popen\npopen('ls')", "runs a shell"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "runs a shell"),
        ("import subprocess as s\ns.Popen(command, shell=flag)", "runs a shell"),
        ("import subprocess\nsubprocess.run(f'ls {x}')", "runs a shell"),
        ("import torch\ntorch.jit.load('x')", "loads code"),
    ],
)
def test_the_checker_finds(code: str, what: str) -> None:
    assert what in {finding.what for finding in findings(code)}


@pytest.mark.parametrize(
    "code",
    [
        "# pickle.loads(x)\ntext = 'eval(1)'",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)\nclass Mine(yaml.SafeLoader):\n    pass",
        "import re\nre.compile('a')",
        "from pickle import UnpicklingError",
        "import torch\ntorch.compile(network)",
        "network.eval()",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', code], check=True)",
        "import pickletools\npickletools.genops(content)",
        "import zipfile\nwith zipfile.ZipFile('x') as z:\n    z.open('y')",
        "import importlib\nimportlib.invalidate_caches()",
    ],
)
def test_the_checker_leaves_alone(code: str) -> None:
    assert findings(code) == []
