"""Shared by the jobs: settings, topics as tables and streams, submission.

May import `udfs` and PyFlink; no job, and nothing of `training`.
"""
