"""Formats of Kafka records: JSON, Avro and Protobuf, plain or with the framing of a schema registry, read into dicts.

record_format.py describes a topic's format and makes its reader, schema_registry.py asks a registry for schemas,
avro.py and protobuf.py turn a schema into a parser.
"""
