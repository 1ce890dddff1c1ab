"""Kafka from Python: client properties, connections that report their failures in one way, topics read to their end.

It may import kafka-python and udfs, and nothing of jobs, training, dashboard or pyflink.
"""
