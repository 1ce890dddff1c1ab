"""Measuring a fitted model on the holdout, beside other models and a rule."""
