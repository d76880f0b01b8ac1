"""What is predicted from what; one file each, found by name."""
