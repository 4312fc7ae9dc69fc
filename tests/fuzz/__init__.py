"""Damaged models, plans, recipes and data through the commands: one line and an exit code, or a right result."""
