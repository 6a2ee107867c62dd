"""What metering costs a Triton server: models with a switch, clients, and the arithmetic."""
