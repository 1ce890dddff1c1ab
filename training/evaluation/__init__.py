"""Evaluation of a fitted model on the holdout, compared with other model families and a rule.

May import `training.modeling` and `training.data`.
"""
