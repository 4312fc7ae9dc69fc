"""Blocks of state spaces (Mamba, Mamba-2, S4, S5) in the shapes that exporters give them."""
