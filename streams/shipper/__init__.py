"""The shipper: from the usage log on this host to Kafka, in a process of its own."""
