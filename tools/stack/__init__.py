"""A Kafka broker and a Flink cluster on this machine, and jobs submitted to it."""
