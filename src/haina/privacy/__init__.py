"""Privacy: what a client sends is bounded, hidden in a sum, covered by noise, and counted against a budget."""
