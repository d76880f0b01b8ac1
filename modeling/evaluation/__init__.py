"""Ranks, metrics and baselines, and the verdict between two models."""
