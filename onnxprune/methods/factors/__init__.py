"""Low rank: which layers are worth two or three smaller ones, at which rank, and how the graph changes."""
