"""Who gets which model: the rollout, rules, and the registry that holds both bundles and ledger.

May import `udfs.models`, `udfs.features` and `udfs.config`.
"""
