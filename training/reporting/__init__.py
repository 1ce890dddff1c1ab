"""The results of a training for people and programs: report, recommendation, serving cost, run in MLflow.

May import `training.experiments`, `training.bundles` and the layers below them.
"""
