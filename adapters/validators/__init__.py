"""Remote validators."""
