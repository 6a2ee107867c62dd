"""Where costs go: ClickHouse, webhooks, Prometheus."""
