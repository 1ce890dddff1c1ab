"""Kafka from Python: client properties, connections that all fail with one error, topics read to their end.

May import kafka-python and the layers below `udfs.kafka`. `udfs.kafka.properties` works without kafka-python.
"""
