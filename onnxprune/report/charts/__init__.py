"""Pictures as SVG of our own: x in percent, y in pixels, so that they fit a telephone and text keeps its size."""
