"""Static figures for papers: one of the run, one of each layer."""
