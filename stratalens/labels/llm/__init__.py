"""Language models that label: behind a server or run on this machine, and a cache of their answers."""
