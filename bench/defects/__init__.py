"""Defects planted in good artifacts, and the gate that catches each: `python -m bench.defects`."""
