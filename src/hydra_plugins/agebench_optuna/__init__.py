"""Optuna, with a study that is continued."""
