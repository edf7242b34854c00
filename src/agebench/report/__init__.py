"""Pictures and tables written at the end of a run."""
