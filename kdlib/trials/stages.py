"""The stages of a run one by one: `train` makes detectors, `test` evaluates those that are there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdlib import methods
from kdlib.data.errors import readable
from kdlib.data.folder import OWN
from kdlib.data.layouts import fitting
from kdlib.data.listing import few
from kdlib.data.reading import WHITE
from kdlib.files import check_folder, expanded, write_text
from kdlib.runtime import processes
from kdlib.scoring import saving
from kdlib.scoring.detector import WHITENED, Detector
from kdlib.scoring.evaluation import evaluate
from kdlib.scoring.normal_maps import NormalMaps
from kdlib.trials import outputs, table
from kdlib.trials.configuration import Configuration
from kdlib.trials.names import printable
from kdlib.trials.run import opened, planned, read_settings
from kdlib.trials.runner import Report, claimed, part_of
from kdlib.trials.runner import train as train_model
from kdlib.trials.trial import Trial, scoring


def train(configuration: Configuration, report: Report) -> list[Path]:
    """Trains and calibrates, and saves detectors below `out/models/`, one per seed and category or for all categories.

    A training that was killed goes on where it was, and one that is complete is not repeated; `run` with the same
    configuration takes it up. Returns the detectors' folders.

    Raises:
        ValueError: If something does not fit, before anything is trained; or if the folder holds results of other
            settings, or the detector of another training in the place of one that is complete.
    """
    c, out, saved = configuration, Path(configuration.out), []
    wanted = planned(c.settings(), [c.method], c.category, c.seed)
    store = opened(out, wanted, c.settings())
    main = processes().is_main_process
    for trial in wanted:
        folders = [outputs.folder_of(trial, part, out) for part in _parts(trial)]
        with claimed(store, trial) as claim:
            if claim == "busy":
                told = [f"skipped {trial}: another process is at work on it"]
            elif claim == "done" and _are_there(trial, out):
                told = [f"there {folder}" for folder in folders]
            else:
                model = methods.build(trial.recipe.method, seed=trial.seed, **trial.recipe.settings())
                train_model(trial, model, store.work(trial))
                for part in _parts(trial) if main else ():
                    outputs.detector(trial, model, part, trial.recipe.maps[0], out)
                told = [f"saved {folder}" for folder in folders]
        if main:
            saved += folders if claim != "busy" else []
            report("\n".join(told))
    return saved


def test(configuration: Configuration, results: Path, report: Report) -> pd.DataFrame:
    """Evaluates saved detectors on the test images; fills `results/metrics.csv` and `results/CATEGORY/` with maps.

    The images may be others than those of the training: another `data` with the same categories, or, after a training
    on the folder of one category, a folder of one's own images of any name.

    Raises:
        ValueError: If a detector is missing, or was made with other settings, or there are no test images; or if
            `results` is a file, or a folder of a run, whose own table would be written over.
    """
    c, rows = configuration, []
    check_folder(results)
    if (results / outputs.SETTINGS).exists():
        raise ValueError(f"'{results}' holds what a run or a training made; name another folder with --results")
    trials = planned(c.settings(), [c.method], c.category, c.seed)
    if not processes().is_main_process:
        return pd.DataFrame()
    for trial in trials:
        for category in trial.categories:
            detector = opened_detector(_trained(trial, category, c), c)
            rows.append(_row(trial, detector, category, results))
            report(table.line(rows[-1]))
    frame = pd.DataFrame(rows)
    write_text(results / outputs.TABLE, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    return frame


def opened_detector(folder: Path, configuration: Configuration) -> Detector:
    """A saved detector, when it was made as a configuration says.

    Raises:
        ValueError: If it is missing, damaged, or was made with other settings.
    """
    if not folder.exists():
        others = few(sorted(saved.name for saved in folder.parent.glob("*")), 6)
        raise ValueError(
            f"there is no detector in '{folder}'; train it first (python -m kdlib train, with the same settings)"
            + (f", or name category or folder as one that is there: {others}" if others else "")
        )
    asked = methods.configure(configuration.method, **configuration.overrides)
    detector = saving.load(folder, weights=None if asked.weights in ("auto", "hub", "random") else asked.weights)
    own = asdict(detector.model.config) | {"size": detector.size, "white": detector.white or WHITE}
    wanted = asdict(asked) | {"size": (configuration.size, configuration.size), "white": configuration.white or WHITE}
    if configuration.maps != "auto":
        own["maps"], wanted["maps"] = _maps_of(detector), _maps_named(configuration.maps)
    differing = [name for name in wanted if name != "weights" and wanted[name] != own.get(name)]
    if differing:
        there = {name: own.get(name) for name in differing}
        here = {name: wanted[name] for name in differing}
        raise ValueError(
            f"the detector in '{folder}' was made with {there}, the configuration says {here}; train it anew into "
            "another --out, or mend the configuration"
        )
    return detector


def the_detector(configuration: Configuration) -> Detector:
    """The saved detector of a configuration's first seed, of its one category or of all categories.

    Raises:
        ValueError: If there is none or several fit; or as `opened_detector` says.
    """
    c, models = configuration, Path(configuration.out) / outputs.MODELS
    names = [outputs.model_name(c.method, part, c.seed[0]) for part in (*(c.category or ()), "all")]
    fitting = [models / name for name in names if (models / name).is_dir()]
    if not c.category and models.is_dir():
        begin, end = c.method.replace("/", "-"), f"-seed{c.seed[0]}"
        fitting = sorted(p for p in models.iterdir() if p.name.startswith(f"{begin}-") and p.name.endswith(end))
    if len(fitting) > 1:
        raise ValueError(
            f"'{models}' holds detectors of several products: {', '.join(folder.name for folder in fitting)}; choose "
            "one with --category NAME or --detector FOLDER"
        )
    return opened_detector(fitting[0] if fitting else models / names[0], c)


def _are_there(trial: Trial, out: Path) -> bool:
    """Whether all detectors of a trial are saved; every one is looked at, before one is written over."""
    return False not in [_is_there(trial, part, out) for part in _parts(trial)]


def _is_there(trial: Trial, part: str, out: Path) -> bool:
    """Whether a trial's detector is saved; one of former images or of a former teacher does not count.

    Raises:
        ValueError: If the detector there is damaged, of another training, or does not say of which.
    """
    folder = outputs.folder_of(trial, part, out)
    if not (folder / saving.WEIGHTS).is_file():
        return False
    own, wanted = saving.noted(folder), outputs.note_of(trial, part)
    differing = [name for name in wanted if wanted[name] != own.get(name)]
    if not set(differing) <= {"data", "teacher"}:
        there = {name: own.get(name) for name in differing} if own else "no note of its training"
        here = {name: wanted[name] for name in differing}
        raise ValueError(
            f"'{folder}' holds the detector of another training: it has {there}, expected {here}; delete that folder "
            "to train anew, or choose another --out"
        )
    return not differing


def _trained(trial: Trial, category: str, configuration: Configuration) -> Path:
    """The folder of the detector for a category; own images may lie in a folder of another name than in training."""
    out, maps, data = Path(configuration.out), trial.recipe.maps[0], _absolute(configuration.data)
    folder, settings = outputs.folder_of(trial, part_of(trial, category, maps), out), out / outputs.SETTINGS
    if folder.exists() or not settings.is_file() or category != readable(data.name) or fitting(data) != OWN.name:
        return folder
    former = _absolute(str(read_settings(settings).get("data")))
    trained = outputs.folder_of(trial, readable(former.name), out)
    return trained if trained.exists() else folder


def _absolute(data: str) -> Path:
    return Path(os.path.abspath(expanded(data)))


def _maps_of(detector: Detector) -> str:
    """How a detector's level maps are scored, with all settings, in the words of a configuration."""
    if detector.normal is None:
        return "plain"
    return _worded("whitened" if detector.whitening else "normal", detector.normal)


def _maps_named(maps: str) -> str:
    """The same of what a configuration says, which may leave settings out."""
    told = scoring(maps)
    kind = told.pop("maps")
    if kind == "plain":
        return "plain"
    settings: dict[str, Any] = (WHITENED if kind == "whitened" else {}) | told
    return _worded(kind, NormalMaps([torch.ones(1, 1, 1, 1)], **settings))


def _worded(kind: str, normal: NormalMaps) -> str:
    return " ".join((kind, *(f"{name}={value}" for name, value in normal.settings().items())))


def _parts(trial: Trial) -> Sequence[str]:
    """What has a detector of its own: categories, or all of them together."""
    return list(dict.fromkeys(part_of(trial, category, trial.recipe.maps[0]) for category in trial.categories))


def _row(trial: Trial, detector: Detector, category: str, results: Path) -> dict[str, Any]:
    images = trial.splits.test.of(category)
    if not len(images):
        raise ValueError(f"'{category}' has no test images; add some, see data/README.md for where they belong")
    keep = outputs.examples(images)
    result = evaluate(detector, images, keep=keep, device=trial.device, precision=trial.precision)
    outputs.draw(trial, detector, category, images, result, results)
    maps = _maps_of(detector)
    return {
        **trial.columns(),
        "maps": trial.recipe.maps[0] if _maps_named(trial.recipe.maps[0]) == maps else maps,
        "category": printable(category),
        **result.metrics(),
        **outputs.columns(trial, detector, images, result),
        "data": trial.data[category],
    }
