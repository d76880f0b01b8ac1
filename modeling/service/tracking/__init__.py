"""What was shown and what became of it, below ROOT/tracked/DATASET.

journal.py      a file of this process alone that events are appended to, and synced before they are acknowledged
parts.py        journals -> clicks/day=2026-03-08/ID.parquet, impressions/... and answers/...
store.py        the journals of a service: many requests share a sync, journals become parts as time goes on
table.py        parts and journals -> a row for each item that was shown, and whether it was clicked
rates.py        click rates with intervals            always_valid.py   the difference of two models, at any time
"""
