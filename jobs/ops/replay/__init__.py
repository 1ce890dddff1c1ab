"""Sends recorded or simulated clicks to Kafka."""
