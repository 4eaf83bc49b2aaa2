"""Configuration files: complete and commented for every preset, read back without loss, refused with a remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from kdlib import methods, yaml_file
from kdlib.cli import app
from kdlib.config import DistillerConfig, ablation, check_names
from kdlib.fields import expectations, meanings
from kdlib.trials import configuration
from kdlib.trials.configuration import Configuration, completed, read, written

PRESETS = [f"{method}/{name}" for method, presets in methods._PRESETS.items() for name in presets]


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def printed(method: str, **changes: Any) -> str:
    return written(completed(None, {"method": method}, changes, examples=True))


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_is_that_preset_when_read(name: str, tmp_path: Path) -> None:
    text = printed(name)
    c = completed(file(tmp_path, text))
    assert c == completed(None, {"method": name}, examples=True)
    assert methods.configure(c.method, **c.overrides) == methods.preset(name)
    assert written(c) == text
    plain = yaml.safe_load(text)
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in plain.pop("options").items()} == {
        k: v for k, v in asdict(methods.preset(name)).items()
    }
    assert list(plain) == list(configuration.ORDER)


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_is_explained(name: str) -> None:
    config = methods.preset(name)
    unexplained = {field.name for field in fields(config)} - {n for n, text in meanings(type(config)).items() if text}
    assert not unexplained, f"{type(config).__name__} has no sentence about them under 'Attributes:'"


def test_every_key_of_a_file_is_explained_and_has_its_place() -> None:
    names = {field.name for field in fields(Configuration)}
    assert names == {*configuration.ORDER, "overrides"} and names <= meanings(Configuration).keys()


def test_changes_survive(tmp_path: Path) -> None:
    changes = {
        "lr": 1e-5,
        "betas": (0.1, 0.2),
        "steps": None,
        "multi_scale": False,
        "weights": "no: #text",
        "clip": 2.0,
    }
    c = completed(file(tmp_path, printed("rd/full", **changes)))
    assert c.overrides == changes and methods.configure(c.method, **c.overrides).lr == 1e-5  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Small(DistillerConfig):
    """A small configuration.

    Attributes:
        blur: Replaces what the base says,
            on two lines.
        kind: Of `what`.
        study: Whether.
    """

    kind: Literal["a", "b"] | None = None
    study: bool = ablation(True)


@pytest.mark.parametrize(
    ("method", "said"), [("dhkd/mvtec", "RECONSTRUCTION"), ("dnpkd", "RECONSTRUCTED"), ("st", "BMVC")]
)
def test_a_printed_file_begins_with_what_is_published_of_the_method(method: str, said: str) -> None:
    head, _, _ = printed(method).partition("# METHOD")
    assert said in head and all(line.startswith("#") for line in head.splitlines() if line)


def test_comments_say_meaning_choices_and_default() -> None:
    assert meanings(Small)["blur"] == "Replaces what the base says, on two lines."
    assert meanings(Small)["epochs"] == "Passes over the training images."
    assert expectations(Small)["kind"] == "one of a, b or none"
    assert yaml_file.commented(Small(blur=2.0), ("blur", "kind", "study"), "  ") == (
        "  # Replaces what the base says, on two lines.\n  # (a number; default 4.0)\n  blur: 2.0\n\n"
        "  # Of what.\n  # (one of a, b or none)\n  kind: null\n\n"
        "  # Whether. For studies only.\n  # (true or false)\n  study: true\n"
    )


VALUES: dict[str, tuple[str, Any]] = {
    "size: 64": ("size", 64),
    "seed: 3": ("seed", (3,)),
    "seed: [0, 1]": ("seed", (0, 1)),
    "category: no": ("category", ("no",)),
    "category: [01, 2024-01-01, on]": ("category", ("01", "2024-01-01", "on")),
    "category:": ("category", None),
    "category: none": ("category", None),
    'category: "none"': ("category", ("none",)),
    "white: null": ("white", None),
    "out: 12": ("out", "12"),
    "maps: normal floor=1.0": ("maps", "normal floor=1.0"),
}


@pytest.mark.parametrize("line", VALUES)
def test_values_are_what_their_fields_are_declared_to_be(line: str, tmp_path: Path) -> None:
    name, value = VALUES[line]
    values, _ = read(file(tmp_path, line))
    assert values == {name: value} and type(values[name]) is type(value)


OPTIONS = {"lr: 1e-3": 0.001, "lr: 1": 1.0, "steps: none": None, "loss: per_position": "per_position", "steps: '7'": 7}


@pytest.mark.parametrize("line", OPTIONS)
def test_options_too(line: str, tmp_path: Path) -> None:
    _, options = read(file(tmp_path, f"method: rd\noptions:\n  {line}"))
    assert options == {line.partition(":")[0]: OPTIONS[line]}


def test_what_equals_the_preset_is_no_change(tmp_path: Path) -> None:
    assert read(file(tmp_path, "method: rd\noptions: {steps: 400, lr: 0.1}"))[1] == {"lr": 0.1}
    assert read(file(tmp_path, "method: rd\noptions:\n"))[1] == {}


def test_a_file_may_be_what_a_windows_shell_writes(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    for encoding in ("utf-16", "utf-8-sig"):
        path.write_bytes(printed("rd/full").replace("\n", "\r\n").encode(encoding))
        assert completed(path).method == "rd/full"


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = file(tmp_path, "method: rd/full\ndata: a\nout: o\nsize: 64\noptions:\n  lr: 0.1\n  steps: 9\n")
    c = completed(path, {"method": "stpm", "size": 32, "data": None}, {"steps": 3})
    assert (c.method, c.size, c.data) == ("stpm", 32, "a")
    assert c.overrides == {"weights": "auto", "lr": 0.1, "steps": 3}


MISTAKES = {
    "epoch: 3": "has no 'epoch'; expected some of auxiliary, category, data",
    "sizes: 3": "'my.yaml' has no 'sizes'; did you mean 'size'?",
    "method: rd\noptions:\n  epoch: 3": "'my.yaml': 'rd' has no 'epoch'; did you mean 'epochs'?",
    "steps: 3": "'steps' belongs below 'options:'",
    "method: rd\noptions:\n  size: 3": "'size' stands below options; move it",
    "options:\n  steps: 3": "has options but no 'method'",
    "method: rd\noptions: 3": "holds '3'; expected lines like 'name: value'",
    "method: rmd": "unknown method 'rmd'",
    "method: rd/huge": "unknown preset 'rd/huge'",
    "method: rd\noptions:\n  steps: many": "steps is 'many'; expected a whole number or none",
    "method: rd\noptions:\n  steps: 0": "steps is 0; expected 1 or more, or none",
    "method: rd\noptions:\n  loss: mean": "loss is 'mean'; expected one of global, per_position",
    "method: rd\noptions:\n  multi_scale: yes": "multi_scale is 'yes'; expected true or false",
    "method: rd\noptions:\n  strides: {a: 1}": "line 3: strides is named values; expected a value",
    "size: big": "size is 'big'; expected a whole number",
    "size: 0": "size is 0; expected 1 pixel or more",
    "seed: []": "seed is an empty list",
    "protocol: both": "protocol is 'both'; expected one of single, multi",
    "size: 3\nsize: 4": "line 2: 'size' stands there twice",
    "[1]: 2": "line 1: a name is a list",
    "- size": "holds a list; expected lines like 'name: value'",
    "size": "holds 'size'; expected lines like 'name: value'",
    "": "is empty; expected lines like 'method: rd/full'",
    "# nothing": "is empty",
    "size: [3": "is no YAML",
    "size: &a [*a]": "line 1: size is a list; expected a single value",
    "seed: &a [*a]": "line 1: seed is a list; expected a single value",
    "data: [a, b]": "line 1: data is a list; expected a single value",
    "data:": "data is missing",
    "data: ~": "data is missing",
    "data: null": "data is missing",
    "seed: -1": "seed is -1; expected a whole number from 0 to 4294967295",
    "method: rd\noptions:\n  lr: 0": "lr is 0.0; expected a number above 0",
    "method: rd\noptions:\n  betas: [0.5, 1]": "betas is (0.5, 1.0); expected numbers from 0 to below 1",
    "method: rd\noptions:\n  blur: 1e6": "blur is 1000000.0; expected 0 to 100 pixels",
    "out: !!python/object/apply:os.system [ls]": "has the tag tag:yaml.org,2002:python/object/apply:os.system",
    "out: !mine x": "has the tag !mine",
    "method: 3": "unknown method '3'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_refused_with_a_remedy(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file(tmp_path, text)
    data = {} if "data" in text else {"data": "d"}
    with pytest.raises(ValueError) as error:
        completed(Path("my.yaml"), {"method": None if "method" in text else "rd", "out": "o"} | data)
    assert MISTAKES[text] in str(error.value) and "my.yaml" in str(error.value)


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no configuration file 'my.yaml'; print one"):
        completed(Path("my.yaml"))
    (tmp_path / "my.yaml").write_bytes(b"size: \xff\xfe\x00")
    with pytest.raises(ValueError, match="is no YAML"):
        completed(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match="there is no configuration file"):
        completed(tmp_path)


def test_what_has_no_default_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data and method and out are missing; name a file with --config"):
        completed()
    with pytest.raises(ValueError, match=r"out is missing; add it to '.*my.yaml'"):
        completed(file(tmp_path, "method: rd\ndata: x"))


def test_names_without_a_near_one_are_all_listed() -> None:
    with pytest.raises(ValueError, match="x has no 'zzz'; expected some of apple, pear"):
        check_names(["zzz"], ["pear", "apple"], "x")
    check_names(["pear"], ["pear", "apple"], "x")


def test_the_command_prints_what_options_say(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    app(["config", "rd/full", "--data", "parts", "--option", "lr=0.1", "--seed", "4"], standalone_mode=False)
    text = capsys.readouterr().out
    c = completed(file(tmp_path, text))
    assert (c.data, c.seed, c.out) == ("parts", (4,), "runs/rd-full") and c.overrides["lr"] == 0.1
    app(["config", "--config", str(tmp_path / "my.yaml")], standalone_mode=False)
    assert capsys.readouterr().out == text
    assert replace(c, size=3).settings().size == 3


def test_the_page_for_users_of_another_toolkit_names_keys_that_exist() -> None:
    page = (Path(__file__).parents[1] / "CONFIGURATION.md").read_text(encoding="utf-8")
    options = {name for presets in methods._PRESETS.values() for config in presets.values() for name in asdict(config)}
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    keys = [row[2].strip(" `") for row in rows if len(row) == 5 and "memkd" not in row[3]]
    top = [key for key in keys if key in configuration.ORDER]
    below = [key.removeprefix("options.") for key in keys if key.startswith("options.")]
    assert len(top) >= 6 and len(below) >= 5 and set(below) <= options
