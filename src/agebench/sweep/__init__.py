"""Sweeps: every point in a process of its own, on devices of its own."""
