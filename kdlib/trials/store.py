"""The trials of one table: a file for each, so that none is lost and none is done twice, gathered into the table.

    TABLE.csv            the rows of all trials, written anew from the files below and its own former rows
    trials/NAME.json     one finished trial: what it was (its key) and its rows
    trials/NAME.lock     a process is at work on it
    trials/NAME.work/    what it needs to go on after a kill

A trial is done where its file holds the same key. Rows of the table without a file, as in a table that was copied or
committed, count too, unless they say that they were measured on other images.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from kdlib.files import write_text
from kdlib.scoring.evaluation import METRICS
from kdlib.trials.names import printable
from kdlib.trials.table import read_all
from kdlib.trials.trial import Recipe, Trial, digest

Claim = Literal["free", "busy", "done"]
_IDENTITY = ["method", "variant", "protocol", "classes", "category", "seed", "size"]
_ROW = [*_IDENTITY, "maps"]
_VARIANT = ["method", "variant", "protocol"]


class Store:
    """Where the trials of a table are kept.

    Args:
        path: The table's file.
        folder: Of the trials' files.
        columns: Of the table, each with the format of its fractions.
        recipes: Rows of one of these variants that have other options than it has by now are left out.

    Raises:
        ValueError: If the table is damaged or has other columns.
    """

    def __init__(self, path: Path, folder: Path, columns: Mapping[str, str], recipes: Sequence[Recipe] = ()) -> None:
        self.path, self.folder, self.columns = path, folder, columns
        self._options: dict[tuple[str, ...], set[str]] = {}
        for recipe in recipes:
            variant = (recipe.method, recipe.variant, recipe.protocol)
            self._options.setdefault(variant, set()).add(recipe.written_options())
        self._table_lock = FileLock(folder / "table.lock")
        self._former = self._table()

    def state(self, trial: Trial) -> Literal["done", "changed", "missing"]:
        """Whether a trial was finished, or was with other options, images or another teacher than it has now.

        Raises:
            ValueError: If its file is damaged.
        """
        file = self._file(trial)
        if file.exists():
            return "done" if _read(file)["key"] == trial.key else "changed"
        rows = self._former
        for name, value in trial.columns().items():
            rows = rows[rows[name] == str(value)]
        for category in trial.categories:
            measured = rows[rows["category"] == printable(category)]
            if measured.empty or not {str(stop) for stop in trial.recipe.stops} <= set(measured["steps"]):
                return "missing"
            if not set(trial.recipe.maps) <= set(measured["maps"]):
                return "missing"
            if not measured["data"].isin(["", trial.data[category]]).all():
                return "changed"
        return "done"

    def has_results(self) -> bool:
        """Whether a trial was finished here, or a process is at work on one."""
        return self.path.exists() or any(self.folder.glob("*.json")) or any(map(_held, self.folder.glob("*.lock")))

    @contextmanager
    def claim(self, trial: Trial) -> Iterator[Claim]:
        """Takes a trial for this process, where it is not done and no other process is at work on it."""
        if self.state(trial) == "done":
            yield "done"
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{trial.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield "busy"
            return
        try:
            yield "done" if self.state(trial) == "done" else "free"
        finally:
            lock.release()
            if self._file(trial).exists():  # else the next process may hold the file by now
                with suppress(OSError):
                    Path(lock.lock_file).unlink()

    def work(self, trial: Trial) -> Path:
        """Folder in which a trial keeps how far it got; another one for other options or images."""
        return self.folder / f"{trial.name}.work" / digest(trial.key)

    def keep(self, trial: Trial, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a finished trial, and the table with its rows."""
        finished = datetime.now(timezone.utc).isoformat()
        content = {"key": trial.key, "finished": finished, "rows": [_without_nan(row) for row in rows]}
        write_text(self._file(trial), json.dumps(content, indent=1) + "\n")
        # Only now: a trial killed before its rows were written must find its training.
        shutil.rmtree(self.folder / f"{trial.name}.work", ignore_errors=True)
        self.gather()

    def gather(self) -> pd.DataFrame:
        """Writes the table from all trials that are there, whichever process finished them.

        Raises:
            ValueError: If a file is damaged.
        """
        if not self.folder.exists():  # nothing was carried out here
            return self._former
        with self._table_lock:
            rows = self._rows()
            write_text(self.path, rows.to_csv(index=False, lineterminator="\n"))
        return rows

    def _rows(self) -> pd.DataFrame:
        """The table's former rows that no file replaces, then those of the files in the order of their end."""
        trials = sorted(map(_read, self.folder.glob("*.json")), key=lambda trial: trial["finished"])
        texts = [self._text(row) for trial in trials for row in trial["rows"]]
        measured = pd.DataFrame(texts, columns=list(self.columns), dtype=str)
        former = self._table()
        replaced = set(measured[_ROW].itertuples(index=False, name=None))
        kept = [row not in replaced for row in former[_ROW].itertuples(index=False, name=None)]
        rows = pd.concat([former.loc[kept], measured], ignore_index=True)
        variants = rows[_VARIANT].itertuples(index=False, name=None)
        current = [own in self._options.get(v, {own}) for v, own in zip(variants, rows["options"], strict=True)]
        return rows.loc[current]

    def _table(self) -> pd.DataFrame:
        """The table as it is on disc."""
        columns = list(self.columns)
        if not self.path.exists():
            return pd.DataFrame(columns=columns, dtype=str)
        return read_all(self.path, columns)[columns]

    def _text(self, row: Mapping[str, Any]) -> dict[str, str]:
        texts = {}
        for name, form in self.columns.items():
            value = math.nan if row.get(name) is None else row[name]
            texts[name] = format(value, form) if isinstance(value, float) else str(value)
        return texts

    def _file(self, trial: Trial) -> Path:
        return self.folder / f"{trial.name}.json"


def _held(lock: Path) -> bool:
    """Whether a process holds this lock."""
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: what is not known is null."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _read(file: Path) -> dict[str, Any]:
    """A trial's file: its key, when it was finished, its rows.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        read = {"key": dict(content["key"]), "finished": datetime.fromisoformat(content["finished"])}
        for row in content["rows"]:
            if missing := [name for name in (*_IDENTITY, "steps") if row[name] is None]:
                raise ValueError(f"a row has no {missing}")
            for metric in METRICS:
                float(row[metric] or 0)
        if not content["rows"]:
            raise ValueError("it has no rows")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{file}' is damaged ({error}); delete it, and its trial is carried out again") from error
    return read | {"rows": content["rows"]}
