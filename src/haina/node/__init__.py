"""The node: one owner's part in a federation. Its rows and its key never leave it."""
