"""The state of one layer in a harvest: bounded in size, mergeable, and packed into bytes and back."""
