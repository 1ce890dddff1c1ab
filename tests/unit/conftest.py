"""Unit tests compute on one thread each: pytest's workers use the other cores.

With two, OpenMP's and BLAS' threads of each worker wait for each other actively. That took more than half of the time
of all tests.
"""

import os

from threadpoolctl import threadpool_limits

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # of libraries that are loaded later, and of processes that tests start
threadpool_limits(1)  # of libraries that are loaded
