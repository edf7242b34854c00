"""Drawings of the lectures, each computed when it is drawn: one file per drawing."""
