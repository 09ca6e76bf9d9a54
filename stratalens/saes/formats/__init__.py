"""Formats of SAE checkpoints, one module each."""
