"""Scoring: maps and scores of a trained model, metrics, thresholds, and the detector that one saves."""
