"""Labels of features, from the evidence or by a language model, and how well each predicts its feature."""
