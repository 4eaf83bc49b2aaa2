"""What only the notebooks need: rendered image sets, widgets, checkers, studies and the ledger of claims."""

from kdlib.course import checks, claims, rendered, studies, widgets

__all__ = ["checks", "claims", "rendered", "studies", "widgets"]
