"""Sentence embeddings: all-MiniLM-L6-v2, its forward pass in NumPy."""
