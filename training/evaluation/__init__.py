"""Evaluation of a fitted model on the holdout, compared with other model families, a rule and the champion.

May import `training.modeling` and `training.data`.
"""
