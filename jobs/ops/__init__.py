"""Commands for operators: create topics, show, send and requeue records, check a target, estimate capacity.

May import `jobs.common`, `training` and `udfs`. No job imports this package.
"""
