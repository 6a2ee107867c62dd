"""A steady, live load on the real stack, and what is watched under it: delays and memory."""
