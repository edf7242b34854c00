"""From a command line to a verb."""
