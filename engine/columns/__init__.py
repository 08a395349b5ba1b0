"""Every kind of column, and what it becomes in a run."""
