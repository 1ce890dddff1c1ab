"""The features: their catalogue, and the compiled kernel that computes them from a user's recent events.

May import `udfs.contracts` and the layers below it.
"""
