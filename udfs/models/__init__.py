"""Models: the bundle format, inference in a library or by a remote server, contributions of the features.

May import `udfs.measurement` and the layers below it.
"""
