"""What widths cost where a model will run."""
