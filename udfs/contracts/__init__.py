"""The records of every topic: the limits on inputs, and the fields of outputs.

A topic is declared here once; table columns, JSON Schemas and readers are derived from it. May import `udfs.config`.
"""
