"""agebench: train, sweep and honestly compare image classifiers."""

__version__ = "0.1.0"
