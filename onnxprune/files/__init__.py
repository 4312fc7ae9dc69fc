"""What is done to files: drafts that get their names together, outputs that are no input, names that can be shown."""
