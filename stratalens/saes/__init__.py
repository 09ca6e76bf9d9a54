"""Sparse autoencoders: found, loaded, checked against their layer."""
