"""Statistics of what was scored: labels, model quality, KPIs, effects of an experiment, drift.

May import `udfs.contracts`, `udfs.features` and `udfs.config`.
"""
