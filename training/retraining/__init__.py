"""Automatic retraining: triggers, a run from the archive to a model in shadow, gates, automatic ramps.

May import all packages of `training` except `training.simulation`.
"""
