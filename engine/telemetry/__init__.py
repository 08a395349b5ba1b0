"""Folds over the events of a run: failures, spending, metrics, traces, progress and the report."""
