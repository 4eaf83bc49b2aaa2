"""Names of methods in another toolkit: accepted wherever a method is named, and printed as ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.cli import app, expand
from kdlib.methods import ALIASES, METHODS, configure, own_name, preset
from kdlib.trials.trial import Recipe


def test_they_stand_for_methods_and_presets() -> None:
    assert own_name("st/full") == "stpm/full" and own_name("rnst") == "memkd_forward"
    assert own_name("rd/full") == "rd/full" and own_name("teapot") == "teapot"
    assert not ALIASES.keys() & METHODS.keys()


@pytest.mark.parametrize("alias", [alias for alias, method in ALIASES.items() if method in METHODS])
def test_they_are_accepted_wherever_a_method_is_named(alias: str) -> None:
    own = ALIASES[alias]
    assert preset(f"{alias}/full") == preset(f"{own}/full") and configure(alias, steps=7) == configure(own, steps=7)
    with torch.device("meta"):
        assert kd.build(alias, weights="random").name == own
    assert Recipe(method=f"{alias}/full").method == f"{own}/full"


def test_tables_print_our_name(tmp_path: Path) -> None:
    tiny.data(tmp_path / "data")
    short = ["--size", "64", "--steps", "1", "--device", "cpu", "--precision", "fp32", "--maps", "plain"]
    arguments = ["run", "st", "stpm", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *short]
    with pytest.raises(SystemExit) as ended:
        app(expand(arguments))
    assert ended.value.code == 0
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith("stpm,")
