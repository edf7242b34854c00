"""Figures and tables that a run writes at its end."""
