"""Linnet: a neural speech codec for 1 to 6 kbit/s that also cleans what it carries."""

__version__ = "0.1.0"
