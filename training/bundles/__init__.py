"""Making bundles: training a model on examples, describing it, writing it.

May import `training.evaluation`, `training.modeling` and `training.data`.
"""
