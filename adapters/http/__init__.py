"""One HTTP client for providers and validators alike."""
