"""What is measured on a test set, and how certain it is."""
