"""Models: the bundle format, and the libraries and servers that compute probabilities.

May import `udfs.contracts`, `udfs.features` and `udfs.measurement`.
"""
