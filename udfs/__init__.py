"""Everything that runs inside a Flink worker, in Python that training and the dashboard import too.

Only `udfs.flink` imports PyFlink. Nothing here imports `training`, `jobs` or `dashboard`.
"""
