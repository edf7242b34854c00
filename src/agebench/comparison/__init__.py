"""Runs side by side: which settings did better on the same test images, and how sure that is."""
