"""The parts of quantization: preparing a working copy, ranges, the modes, the search for what must stay float."""
