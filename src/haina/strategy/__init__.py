"""How whatever arrives becomes the next good model: pure mathematics on vectors."""
