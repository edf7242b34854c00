"""The run directory: its name, its files and their content."""
