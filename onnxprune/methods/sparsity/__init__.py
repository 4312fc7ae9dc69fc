"""Zeros in weights: which, how many in each layer, and what the others become to make up for it."""
