"""What lies on disk, written and read safely."""
