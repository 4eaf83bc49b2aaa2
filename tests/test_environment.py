"""pyproject.toml says what kdlib needs; every other file that says so too must agree with it."""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch"}
ONLY_CONDA = {"python", "pip"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def environment() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name and bound of each requirement, as in {"numpy": ">=1.26"}."""
    parts = [re.fullmatch(r"([\w-]+)(.*)", requirement.replace(" ", "")) for requirement in requirements]
    return {part[1].lower(): part[2] for part in parts if part}


def conda(environment: dict[str, Any]) -> dict[str, str]:
    return bounds([entry for entry in environment["dependencies"] if isinstance(entry, str)])


def pip_lines(environment: dict[str, Any]) -> list[str]:
    return next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))


def test_environment_lists_what_pyproject_lists(project: dict[str, Any], environment: dict[str, Any]) -> None:
    table = project["project"]
    wanted = bounds([*table["dependencies"], *table["optional-dependencies"]["lab"]])
    listed = conda(environment) | bounds([line for line in pip_lines(environment) if not line.startswith("-e")])
    assert {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items()} == {
        name: bound for name, bound in listed.items() if name not in ONLY_CONDA
    }


def test_environment_installs_kdlib_with_extras_that_exist(
    project: dict[str, Any], environment: dict[str, Any]
) -> None:
    (line,) = [line for line in pip_lines(environment) if line.startswith("-e")]
    extras = re.fullmatch(r"-e \.\[(.+)\]", line)
    assert extras is not None
    assert set(extras[1].split(",")) == set(project["project"]["optional-dependencies"])


def test_environment_takes_a_python_that_pyproject_allows(project: dict[str, Any], environment: dict[str, Any]) -> None:
    lowest = tuple(int(part) for part in project["project"]["requires-python"].removeprefix(">=").split("."))
    taken = tuple(int(part) for part in conda(environment)["python"].lstrip("=").split("."))
    assert taken >= lowest


def test_pyproject_sets_lower_bounds_only(project: dict[str, Any]) -> None:
    table = project["project"]
    every = [*table["dependencies"], *chain.from_iterable(table["optional-dependencies"].values())]
    assert [line for line in every if not re.fullmatch(r"[\w-]+>=[\d.]+", line)] == []


def test_the_citation_names_the_same_version_and_licence(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (project["project"]["version"], project["project"]["license"])


def test_the_changelog_has_this_version(project: dict[str, Any]) -> None:
    assert f"## {project['project']['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
