"""Names of features, and how well each predicts its feature."""
