"""What a run can be told: settings, layers of them, the form in the UI, what is offered."""
