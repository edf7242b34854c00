"""Comparison of runs on the same test images, with intervals and p-values of their differences."""
