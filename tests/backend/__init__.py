"""Every operator of ONNX's own backend suite between two matrix products: a test of all rules by construction."""
