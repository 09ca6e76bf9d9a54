"""Numbers out of a harvest: effects, tests, ranked features."""
