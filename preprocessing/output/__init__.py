"""What preparation writes: sessions, items, profiles, published snapshots."""
