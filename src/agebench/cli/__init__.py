"""Command lines: flags, checks, help, error messages."""
