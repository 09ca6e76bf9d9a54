"""Static figures for papers: one of the whole run and one of each layer."""
