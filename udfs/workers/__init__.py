"""The Python workers of the score job: processes that decode and score batches in shared memory.

An operator of udfs/java starts `python -m udfs.workers DIRECTORY`; the handler that it passes defines what the worker
does (docs/workers.md). May import all packages of `udfs` except `udfs.flink`.
"""
