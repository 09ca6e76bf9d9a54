"""SAE checkpoints on disk: one module a format, each giving the hookpoints of a directory and loading one of them."""
