"""Text in, populations of documents out."""
