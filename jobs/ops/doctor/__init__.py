"""Checks what the settings of the score job point at: Kafka, model and Flink cluster."""
