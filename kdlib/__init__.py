"""kdlib: find and localise defects in images by knowledge distillation.

data = kd.datasets.load("workshop", "hex_nut")
model = kd.build("rd")
kd.fit(model, data.train)
detector = kd.calibrate(model, data.calib)
kd.evaluate(model, data.test).metrics()
kd.score(detector, "part.png")
"""

from importlib.metadata import version

from kdlib import backbones, checks, datasets, losses, maps, metrics, viz, widgets
from kdlib.detector import Detector, Verdict, calibrate, load, save, score
from kdlib.evaluate import Result, evaluate
from kdlib.methods import build
from kdlib.runtime import setup
from kdlib.train import History, fit

__version__ = version("kdlib")
__all__ = [
    "Detector",
    "History",
    "Result",
    "Verdict",
    "backbones",
    "build",
    "calibrate",
    "checks",
    "datasets",
    "evaluate",
    "fit",
    "load",
    "losses",
    "maps",
    "metrics",
    "save",
    "score",
    "setup",
    "viz",
    "widgets",
]
