"""What a harvest keeps of one layer: bounded, mergeable statistics."""
