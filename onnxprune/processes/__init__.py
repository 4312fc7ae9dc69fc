"""Processes of ours: what surrounds them, what ends them, and the one native library that they all run."""
