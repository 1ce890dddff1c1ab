"""A Kafka broker and a Flink cluster on this machine, and submitting jobs to them."""
