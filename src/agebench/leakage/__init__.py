"""Who is in train and in test."""
