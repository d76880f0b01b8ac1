"""Session Parquet and its feature schema -> checkpoint, metrics, recommendations."""
