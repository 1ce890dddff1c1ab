"""Evaluation of a fitted model on the holdout, beside other model families and a rule.

May import `training.modeling` and `training.data`.
"""
