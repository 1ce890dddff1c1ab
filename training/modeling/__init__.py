"""Fitting: model families, model selection, calibration, metrics, export to ONNX.

May import `training.data`.
"""
