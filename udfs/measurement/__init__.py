"""Measuring models and experiments: labels, model quality, KPIs, effects of an experiment, drift.

May import `udfs.features` and the layers below it.
"""
