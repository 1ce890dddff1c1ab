"""Changes of the rollout: commands, the checks that they must pass, and the ledger that records them.

May import `training.experiments`, `training.bundles` and the layers below them.
"""
