"""A simulated shop whose users have a known propensity to buy.

May import `training.bundles` and the layers below it. Imported only by `training.train`, `training.simulate`,
`jobs.ops.replay`, `tools` and tests.
"""
