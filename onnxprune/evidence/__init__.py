"""Evidence: masked parity, parity of outputs, latency, limits, the verdict."""
