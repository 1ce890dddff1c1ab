"""The jobs that run on Flink, one module each, and below them what they share and what operators run.

`jobs/*.py` are what is submitted; `jobs.common` is what they share; `jobs.ops` are commands for operators. Jobs and
`jobs.common` import `udfs` and PyFlink, and nothing of `training`.
"""
