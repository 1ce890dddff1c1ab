"""The records of every topic: what an input may hold, and what each output is.

A topic is declared here once; table columns, JSON Schemas and readers are derived from it. May import `udfs.config`.
"""
