"""Image files in folders and archives, and downloads."""
