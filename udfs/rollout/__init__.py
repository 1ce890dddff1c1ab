"""Which user gets which model: the rollout, rules, and the registry of bundles and ledger, which is only read here.

May import `udfs.models` and the layers below it. `training.rollout` writes the registry.
"""
