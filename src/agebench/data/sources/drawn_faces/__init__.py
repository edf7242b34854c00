"""Drawn faces of invented people, for which age is known."""
