"""The language model: found, loaded, its tokens, its hooks."""
