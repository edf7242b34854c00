"""Uses of a trained run: evaluate, predict and export."""
