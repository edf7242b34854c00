"""Data sets that a YAML can name."""
