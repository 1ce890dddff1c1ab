"""Commands for operators: they look at topics, send records, and check settings against a cluster.

May import `jobs.common`, `training` and `udfs`. No job imports them.
"""
