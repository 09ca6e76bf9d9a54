"""Every file of a result."""
