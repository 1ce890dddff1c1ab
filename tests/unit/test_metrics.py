import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from udfs.metrics import LATENCY_BOUNDS_MS, cumulative_counts


@given(st.lists(st.floats(0, 100_000), max_size=50))
def test_each_bucket_counts_the_latencies_up_to_its_bound_and_the_last_one_all(latencies):
    counts = cumulative_counts(np.array(latencies)).tolist()
    assert counts[:-1] == [sum(latency <= bound for latency in latencies) for bound in LATENCY_BOUNDS_MS]
    assert counts[-1] == len(latencies)
