"""What the jobs share: settings, topics as tables and streams, submission.

May import `udfs` and PyFlink, nothing of `training`, and no job.
"""
