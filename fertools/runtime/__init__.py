"""Predict expressions with numpy and onnxruntime alone."""
