"""Raw events to sessions: read, check, clean, cut, encode, write. Start reading at `pipeline.py`."""
