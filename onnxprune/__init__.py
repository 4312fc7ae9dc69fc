"""Prune, compress and prove ONNX models after export."""
