"""Backtests: what models, a rule and a retraining schedule would have earned on recorded clicks.

`decisions`, `ledger` and `earnings` are plain functions of arrays; `replay` and `schedule` read prepared examples and
models; `report` writes. May import `training.bundles` and the layers below it.
"""
