"""Serving models inside a worker: loading, polling the registry, scoring, shadows.

May import `udfs.rollout` and the layers below it.
"""
