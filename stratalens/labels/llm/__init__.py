"""Language models that label: servers, local models, a cache around either."""
