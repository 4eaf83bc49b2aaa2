"""kdlib: find and localise defects in images by knowledge distillation.

data = kd.data.load("workshop", "hex_nut")
model = kd.build("rd")
kd.fit(model, data.train)
detector = kd.calibrate(model, data.calib)
kd.evaluate(model, data.test).metrics()
kd.score(detector, "part.png")
"""

import os
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

# Before torch is loaded: threads that wait for their turn by spinning slow training threefold where another process
# uses a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from kdlib import contract, data, layers, losses, maps, methods, teachers
from kdlib.methods import build
from kdlib.scoring import metrics
from kdlib.scoring.detector import Detector, calibrate
from kdlib.scoring.evaluation import evaluate
from kdlib.scoring.result import Result
from kdlib.scoring.saving import load, save
from kdlib.scoring.verdict import Verdict, score
from kdlib.session import setup
from kdlib.training.loop import fit
from kdlib.training.state import History

__version__ = version("kdlib")
__all__ = [
    "Detector",
    "History",
    "Result",
    "Verdict",
    "build",
    "calibrate",
    "contract",
    "data",
    "evaluate",
    "fit",
    "layers",
    "load",
    "losses",
    "maps",
    "methods",
    "metrics",
    "save",
    "score",
    "setup",
    "teachers",
    "viz",
]


def __getattr__(name: str) -> ModuleType:
    """Imports `kdlib.viz`, and with it matplotlib, when it is first asked for."""
    if name == "viz":
        return import_module("kdlib.viz")
    raise AttributeError(f"module 'kdlib' has no attribute '{name}'")
