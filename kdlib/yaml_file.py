"""Dataclasses as commented YAML, and YAML as values of the declared types.

A file is parsed into nodes and nothing is constructed from them: what a scalar means is decided by the type of its
field. `1e-5` is a number where a number is declared, and a category may be called `01` or `no` without quotes.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from kdlib.fields import default, expectations, meanings

_NOTHING = ("", "~", "null", "none")
_NULL = "tag:yaml.org,2002:null"
_WIDTH = 110


def commented(config: Any, names: tuple[str, ...], indent: str = "") -> str:
    """Some fields of a dataclass as YAML, each below its meaning, what it may hold, and its default if it has another.

    Fields that only studies change say so.
    """
    meaning, expected = meanings(type(config)), expectations(type(config))
    declared = {field.name: field for field in fields(config)}
    parts = []
    for name in names:
        value, usual = getattr(config, name), default(declared[name])
        facts = expected[name] if usual in (MISSING, value) else f"{expected[name]}; default {flow(usual)}"
        study = " For studies only." if declared[name].metadata.get("ablation") else ""
        lines = wrap(f"{meaning.get(name, '')}{study}", _WIDTH)
        lines += wrap(f"({facts})", _WIDTH) if facts != "a text" else []  # which needs no saying
        parts.append("".join(f"{indent}# {line}\n" for line in lines) + f"{indent}{name}: {flow(value)}\n")
    return "\n".join(parts)


def flow(value: Any) -> str:
    """A value as YAML on one line; a tuple is a list, `None` is `null`."""
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").rstrip("\n")


def mapping(path: Path) -> dict[str, yaml.Node]:
    """The named nodes of a file.

    Raises:
        ValueError: If there is no such file, it is no YAML, or it does not hold named values.
    """
    if not path.is_file():
        raise ValueError(f"there is no configuration file '{path}'; print one with: python -m kdlib config METHOD")
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"'{path}' is no YAML ({_on_one_line(error)}); mend that place") from error
    if root is None:
        raise ValueError(f"'{path}' is empty; expected lines like 'method: rd/full'")
    return entries(root, f"'{path}'")


def entries(node: yaml.Node, owner: str) -> dict[str, yaml.Node]:
    """The values of a mapping by name.

    Raises:
        ValueError: If it is no mapping, or a name stands there twice.
    """
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{owner} holds {_described(node)}; expected lines like 'name: value'")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{owner}, line {line(key)}: a name is {_described(key)}; expected a text")
        if key.value in found:
            raise ValueError(f"{owner}, line {line(key)}: '{key.value}' stands there twice; remove one of the lines")
        found[key.value] = value
    return found


def line(node: yaml.Node) -> int:
    """The line of its file on which a node begins, counted from 1."""
    return int(node.start_mark.line) + 1


def is_nothing(node: yaml.Node) -> bool:
    """Whether a name has no value."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value.lower() in _NOTHING


def values(nodes: Mapping[str, yaml.Node], hints: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """What nodes say, by the types of the fields of these names; whether they may say that is checked elsewhere.

    A null is `None` for a field that may hold that; for another it is as if its line were not there.

    Raises:
        ValueError: If a value is a mapping, a list where none is declared, or has a tag.
    """
    found = {}
    for name, node in nodes.items():
        if node.tag == _NULL and type(None) not in _members(hints[name]):
            continue
        try:
            found[name] = _value(node, hints[name])
        except ValueError as error:
            raise ValueError(f"{owner}, line {line(node)}: {name} {error}") from None
    return found


def _value(node: yaml.Node, hint: Any) -> Any:
    """A list where lists are declared, one value standing for a list of one; else a scalar."""
    if not str(node.tag).startswith("tag:yaml.org,2002:") or "/" in str(node.tag):
        raise ValueError(f"has the tag {node.tag}; expected a plain value")
    kinds = list(_members(hint))
    lists = [kind for kind in kinds if get_origin(kind) is tuple]
    if isinstance(node, yaml.SequenceNode):
        if not lists:  # nothing is looked into that is not declared: a list may hold itself
            raise ValueError("is a list; expected a single value")
        return tuple(_value(entry, get_args(lists[0])[0]) for entry in node.value)
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"is {_described(node)}; expected a value")
    scalar = _scalar(node, kinds)
    if scalar is not None and lists and not any(kind is str for kind in kinds):
        return (_value(node, get_args(lists[0])[0]),)
    return scalar


def _scalar(node: yaml.ScalarNode, kinds: list[Any]) -> Any:
    """A scalar as the first of these types that fits its text, as that text where none does."""
    text = str(node.value)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    for choice in choices:
        if str(choice) == text:
            return choice
    if type(None) in kinds and is_nothing(node):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            if kind in kinds:
                return kind(text)
        except ValueError:
            continue
    return text


def _members(hint: Any) -> Iterator[Any]:
    """The types of a union, or the one type."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _members(part)
    else:
        yield hint


def _described(node: yaml.Node) -> str:
    return {"mapping": "named values", "sequence": "a list"}.get(node.id, f"'{node.value}'")


def _on_one_line(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())
