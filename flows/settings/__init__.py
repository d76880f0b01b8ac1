"""What can be set for a run: settings, layers of them, the form in the UI, and the parts that there are."""
