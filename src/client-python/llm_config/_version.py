"""The version of this package; that of the API is in the path."""

__version__ = "0.2.0"
