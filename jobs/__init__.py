"""The jobs that run on Flink: each module here is one job.

`jobs.common` is shared by the jobs; `jobs.ops` holds commands for operators. The jobs may import `jobs.common`, `udfs`
and PyFlink; they import no other job, and nothing of `training`.
"""
