"""Fitting: kinds of models, model selection, calibration, export to ONNX.

May import `training.data`, `training.evaluation` and `training.bundles`.
"""
