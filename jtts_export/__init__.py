"""Export text-to-speech models to ONNX and INT8, and publish only what was measured and passed."""

__version__ = "0.1.0"
