"""Training and rollout of models: commands on top, libraries in the packages below.

May import `udfs`. Only commands import `training.simulation`.
"""
