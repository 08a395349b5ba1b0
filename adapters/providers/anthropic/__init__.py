"""Endpoints that speak the Messages API of Anthropic."""
