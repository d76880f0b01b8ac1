"""What a model must beat; one class per file, found by name."""
