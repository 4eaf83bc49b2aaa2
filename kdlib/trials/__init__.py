"""Trials: methods x categories x seeds, tables of their rows, and speed."""
