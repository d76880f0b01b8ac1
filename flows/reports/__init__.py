"""What a run shows a person: the report, tables, charts, progress."""
