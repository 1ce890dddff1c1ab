"""The features: their catalogue, and the kernel that computes them from a user's recent events.

May import `udfs.contracts`.
"""
