"""Calibration of a trained run: a temperature of its posterior, and conformal label sets by person."""
