"""One run, from its settings to how it ended."""
