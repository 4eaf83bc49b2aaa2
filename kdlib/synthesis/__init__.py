"""Defects made on normal images."""
