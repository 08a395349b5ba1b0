"""The dataset engine: a pure core that decides, a thin shell that acts, and the public things users write."""

from .moved import register_moved

register_moved(__name__)
