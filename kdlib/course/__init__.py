"""What only the notebooks need: rendered image sets, widgets, checkers, studies and the ledger of claims.

Nothing is imported with it: studies and rendered sets must work where the notebooks' widgets are not installed.
"""
