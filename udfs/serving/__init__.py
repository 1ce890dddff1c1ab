"""Models at work inside a worker: loading, following the registry, scoring, shadows.

May import `udfs.rollout`, `udfs.models` and `udfs.features`.
"""
