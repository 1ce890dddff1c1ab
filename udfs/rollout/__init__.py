"""User assignment to models: the rollout, rules, and read access to the registry of bundles and ledger.

May import `udfs.models` and the layers below it. `training.rollout` writes the registry.
"""
