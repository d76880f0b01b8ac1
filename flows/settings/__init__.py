"""What can be set for a run: settings, layers of them, the form in the UI, what is offered."""
