"""Rows of a database become Parquet files below the root, which the source of files reads as any other."""
