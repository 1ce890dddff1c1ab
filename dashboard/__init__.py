"""The live dashboard: a read-only web application over the topics and the registry.

May import `jobs.common`, `training` and `udfs`; no PyFlink.
"""
