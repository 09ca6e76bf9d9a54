"""Readers of SAE checkpoint formats, one module per format; they do not import one another."""
