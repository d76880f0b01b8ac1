"""Fitting a model: the loop, its schedule, its optimizer and its checkpoints."""
