"""The command line: flags, checks, help and error messages."""
