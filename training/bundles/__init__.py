"""Making bundles: train a model on examples, describe it, write it.

May import `training.evaluation`, `training.modeling` and `training.data`.
"""
