"""Training losses, one pure function per file, found by name."""
