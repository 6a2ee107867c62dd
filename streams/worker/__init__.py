"""The Faust worker: usage in, priced lines and windows out."""
