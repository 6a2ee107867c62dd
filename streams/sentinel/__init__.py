"""The sentinel's process: what this host's accelerators and its Triton count, every few seconds."""
