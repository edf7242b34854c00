"""Leakage: identities and images that are both in train and in test."""
