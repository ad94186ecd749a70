"""Homes of local training, one contract for all."""
