"""Pages to read: one for each run, one for each comparison, from the files in their folders."""
