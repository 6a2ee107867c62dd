"""What the stream processor is compared with, and how."""
