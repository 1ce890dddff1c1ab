"""The Python functions that the jobs' SQL calls: the only package of `udfs` that imports PyFlink.

May import all packages of `udfs` except `udfs.workers`.
"""
