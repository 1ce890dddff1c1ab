"""Analysis of experiments: reading sessions, comparing two arms, reporting.

May import `training.bundles` and the layers below it.
"""
