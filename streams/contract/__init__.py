"""The topics as a contract with others: what they carry, its schemas, and what may change."""
