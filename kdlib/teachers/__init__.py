"""Teachers: frozen, pretrained networks as pyramids of features, with weights that always say where they come from."""

from kdlib.teachers.pyramid import DEFAULT, Pyramid, Teacher, classifier, full_name, student_like, teacher
from kdlib.teachers.weights import RANDOM_SEED, Weights, resolve

__all__ = [
    "DEFAULT",
    "RANDOM_SEED",
    "Pyramid",
    "Teacher",
    "Weights",
    "classifier",
    "full_name",
    "resolve",
    "student_like",
    "teacher",
]
