"""Progress displays: a terminal, a notebook, plain lines."""
