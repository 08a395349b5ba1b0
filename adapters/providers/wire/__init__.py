"""What the HTTP providers share."""
