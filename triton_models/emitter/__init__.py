"""What meters a model from inside Triton's Python backend: a wrapper around ``execute`` and a log.

Runs in Triton's own environment (numpy 1.26, pydantic, the standard library).
"""
