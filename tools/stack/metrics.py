"""Metrics of a running job, read from the endpoint that Prometheus reads."""

import re
from collections.abc import Iterable, Iterator

from tools.stack.http_client import get_text
from tools.stack.local_stack import LocalStack

NOT_PLAIN = re.compile(r"[^a-zA-Z0-9:_]")


def job_metric(stack: LocalStack, job: str, name: str, **labels: str) -> int:
    """The sum of a metric of the functions, such as `scored`, with these labels over all workers of a job."""
    return _sum(_samples(stack, job, name), **labels)


def job_buckets(stack: LocalStack, job: str, name: str, *bounds: str) -> list[int]:
    """The number of values of a metric such as `predict_ms` at most each of the bounds, all at the same moment."""
    samples = list(_samples(stack, job, f"{name}_bucket"))
    return [_sum(samples, le=bound) for bound in bounds]


def records_read(stack: LocalStack, job: str) -> int:
    """The number of records that the sources of a job have read since its start."""
    samples = _samples(stack, job, "operator_numRecordsIn")
    return sum(value for labels, value in samples if 'operator_name="Source:' in labels)


def _samples(stack: LocalStack, job: str, name: str) -> Iterator[tuple[str, int]]:
    """Labels and value of each sample of a metric of a job."""
    pattern = re.compile(rf"^\w+_{name}\{{(.*)\}} (\S+)$", re.MULTILINE)
    for task_manager in stack.task_managers():
        for labels, value in pattern.findall(get_text(task_manager.ports["metrics"], "/metrics")):
            if f'job_id="{job}"' in labels:
                yield labels, int(float(value))


def _sum(samples: Iterable[tuple[str, int]], **labels: str) -> int:
    # As Flink's reporter writes values: a version's hyphen, the plus of +Inf.
    expected = [f'{label}="{NOT_PLAIN.sub("_", value)}"' for label, value in labels.items()]
    return sum(value for sample_labels, value in samples if all(label in sample_labels for label in expected))
