"""What a harvest keeps of one layer: bounded, mergeable, packed into bytes and back."""
