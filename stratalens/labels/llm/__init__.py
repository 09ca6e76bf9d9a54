"""Language models that label: a server, a model run here, a cache around either."""
