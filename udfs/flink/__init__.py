"""The functions that the jobs' SQL calls: the only package of `udfs` that imports PyFlink."""
