"""Trials: methods x categories x seeds, each with a file of its own; tables of their rows; speed."""
