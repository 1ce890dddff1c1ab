"""The features: declared as expressions, and compiled to a kernel that computes them from a user's recent events.

May import `udfs.contracts` and the layers below it.
"""
