"""Data sets: from downloaded files to batches of uint8 pixels."""
