"""Teachers: frozen, pretrained networks as pyramids of features, with weights that always say where they come from."""

from kdlib.teachers.building import classifier, student_like, teacher
from kdlib.teachers.names import DEFAULT, JOIN, full_name
from kdlib.teachers.patches import PDN, Architecture, PatchTeacher, normalise, patch_name
from kdlib.teachers.probe import Style
from kdlib.teachers.pyramid import InTurn, Pyramid, Several, Teacher
from kdlib.teachers.weights import RANDOM_SEED, Weights, resolve

__all__ = [
    "DEFAULT",
    "JOIN",
    "PDN",
    "RANDOM_SEED",
    "Architecture",
    "InTurn",
    "PatchTeacher",
    "Pyramid",
    "Several",
    "Style",
    "Teacher",
    "Weights",
    "classifier",
    "full_name",
    "normalise",
    "patch_name",
    "resolve",
    "student_like",
    "teacher",
]
