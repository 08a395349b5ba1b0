"""Adapters: one module per outside thing that rowloop talks to."""
