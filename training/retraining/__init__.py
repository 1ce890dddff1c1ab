"""Retraining by itself: triggers, a run from archive to shadow, gates, automatic ramps."""
