"""Reporting of training results: report, model card, recommendation, serving cost, run in MLflow.

May import `training.experiments`, `training.bundles` and the layers below them.
"""
