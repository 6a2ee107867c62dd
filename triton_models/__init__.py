"""The model repository, and the emitter that publishes usage from inside Triton."""
