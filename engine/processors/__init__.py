"""Processors of whole frames, and how they are applied."""
