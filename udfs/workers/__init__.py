"""The Python side of the batch operators in udfs/java: processes that decode and score batches in shared memory.

An operator starts `python -m udfs.workers DIRECTORY`; the handler that it passes says what the worker does. Nothing
here imports PyFlink.
"""
