"""Kafka from Python: client properties, connections that raise one kind of error, reading topics to their end.

May import kafka-python and the layers below `udfs.kafka`. `udfs.kafka.properties` works without kafka-python.
"""
