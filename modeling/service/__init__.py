"""Recommendations from a model folder alone."""
