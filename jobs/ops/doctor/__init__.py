"""Checks of the targets that the score job's settings name: Kafka, model and Flink cluster."""
