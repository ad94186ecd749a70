"""Integer noise: exact distributions from tables of 128-bit numbers, driven by a cipher's bits; no floating point on the way."""
