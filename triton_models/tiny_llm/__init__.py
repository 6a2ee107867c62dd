"""A real, small transformer: the glassllm package's English weights, decoded in batches."""
