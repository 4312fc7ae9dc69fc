"""How much each channel of a group matters: criteria by name, and the one call that scores groups."""
