"""What `trim` is made of: one file for each thing that can go at the border of a graph."""
