"""Formats of SAE checkpoints, one module each; no module imports another."""
