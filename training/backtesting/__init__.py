"""Backtests: what models, a rule and a retraining schedule would have earned on recorded clicks.

`decisions`, `ledger` and `earnings` are plain functions of arrays; `replay` and `schedule` read prepared examples and
models. `plan` checks what is asked for, `run` carries it out, `assessment` turns decisions into a result, and `report`
writes it. May import `training.bundles` and the layers below it.
"""
