"""Sequence encoders, one file each, found by name: (x_BLD, segments_BL, positions_BL) -> h_BLD."""
