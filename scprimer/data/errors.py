"""The one error that everything about data raises, so that a caller can catch it without importing the science stack."""

from __future__ import annotations


class DataError(Exception):
    """A data set or file cannot be used; the message says in plain words what is wrong and what to do."""
