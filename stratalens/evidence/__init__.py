"""What fires a feature."""
