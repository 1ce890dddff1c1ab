"""Data preparation: from archives and files to labelled examples with the features that the job computes.

May import nothing else of `training`.
"""
