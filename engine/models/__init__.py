"""A model, its price, and one request to it."""
