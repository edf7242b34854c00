"""From files as downloaded to batches of uint8 pixels."""
