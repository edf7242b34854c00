"""A run directory - its name, its files and what they hold."""
