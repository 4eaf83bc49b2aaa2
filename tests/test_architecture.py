"""The rooms of kdlib: arrows between them point one way, files stay short, and importing it is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "kdlib").rglob("*.py"))
LIBRARY = [path for path in FILES if "course" not in path.relative_to(ROOT).parts]

# What each room may use, besides itself; the ground floor first.
GROUND = {"config", "files", "randomness", "runtime", "schedules"}
MODELS = GROUND | {"losses", "maps", "teachers", "layers", "contract"}
MAY_USE = {
    "config": set(),
    "files": set(),
    "randomness": set(),
    "allocation": set(),
    "runtime": {"allocation"},
    "schedules": set(),
    "losses": set(),
    "maps": {"config"},
    "teachers": GROUND,
    "layers": GROUND | {"teachers", "losses", "maps"},
    "contract": GROUND | {"losses", "maps", "teachers"},
    "methods": MODELS | {"synthesis"},
    "synthesis": GROUND | {"data", "maps"},
    "data": {"files", "randomness"},
    "training": MODELS - {"layers"} | {"data"},
    "scoring": MODELS | {"methods", "data"},
    "lettering": set(),
    "png": set(),
    "fields": {"config"},
    "yaml_file": {"fields"},
    "canvas": {"lettering"},
    "feature_sheet": {"canvas", "lettering", "scoring"},
    "viz": GROUND | {"png", "lettering", "canvas", "feature_sheet", "data", "scoring", "training"},
    "trials": MODELS | {"methods", "data", "training", "scoring", "canvas", "viz", "fields", "yaml_file"},
    "session": GROUND | {"teachers"},
}


def module(path: Path) -> str:
    """`kdlib.teachers.weights` for its file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules of kdlib that a file imports, wherever in it, but for those that only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(n) for block in ast.walk(tree) if is_for_types(block) for n in ast.walk(block)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {part for part in parts if part in MODULES} or {node.module}
    return names & MODULES.keys()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "kdlib"


def test_no_circle_of_imports() -> None:
    graph = {name: imported(path) - {name} for name, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", LIBRARY, ids=[module(path) for path in LIBRARY])
def test_arrows_point_one_way(path: Path) -> None:
    own = room(module(path))
    used = {room(name) for name in imported(path)} - {own}
    assert "course" not in used, "the library stands without its course"
    if own in MAY_USE:
        assert used <= MAY_USE[own], f"{own} must not use {sorted(used - MAY_USE[own])}"


def test_training_scoring_and_trials_know_no_method_by_name() -> None:
    for path in LIBRARY:
        if room(module(path)) in ("training", "scoring", "trials"):
            assert not {n for n in imported(path) if n.startswith("kdlib.methods.")}, path


def test_no_name_means_a_module_and_something_else() -> None:
    hidden = []
    for name in MODULES.keys() - {"kdlib.__main__"}:
        parent, _, leaf = name.rpartition(".")
        found = import_module(name)
        if parent and getattr(import_module(parent), leaf) is not found:
            hidden.append(name)
    assert hidden == []


def test_files_are_short() -> None:
    lengths = {module(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > 250} == {}


def printed(program: str, **environment: str) -> str:
    """What a program prints in a process of its own, which must say nothing on stderr."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", program]
    given = inherited | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=given, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_importing_is_light_and_quiet() -> None:
    """The library knows nothing of its course; that renders, checks answers and reads tables without figures."""
    blocked = "".join(f"sys.modules['{name}'] = None; " for name in ("matplotlib", "ipywidgets", "IPython"))
    parts = "kdlib.course.rendered, kdlib.course.checks, kdlib.course.claims"
    assert (
        printed(f"import sys; {blocked}import kdlib; print('kdlib.course' in sys.modules); import {parts}") == "False"
    )


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep(given: dict[str, str], expected: str) -> None:
    """That is settled before torch is loaded, which is missing here."""
    program = """
import os, sys
sys.modules["torch"] = None
try:
    import kdlib
except ImportError:
    print(os.environ["OMP_WAIT_POLICY"])
"""
    assert printed(program, **given) == expected
