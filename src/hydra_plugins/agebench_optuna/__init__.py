"""Optuna, with a study that can be resumed."""
