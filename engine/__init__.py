"""The dataset engine: a pure core that decides, a thin shell that acts, and the public things users write."""
