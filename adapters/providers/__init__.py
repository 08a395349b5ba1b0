"""Where models come from: endpoints, this process, Python functions."""
