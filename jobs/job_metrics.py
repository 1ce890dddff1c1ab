"""What a running job counts, read where Prometheus reads it."""

import re
from collections.abc import Iterator

from jobs.local_http import get_text
from jobs.local_stack import LocalStack


def job_metric(stack: LocalStack, job: str, name: str, **labels: str) -> int:
    """The sum of a metric of the functions, such as `scored`, over all workers of a job, where it has these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(value for found, value in _samples(stack, job, name) if all(label in found for label in wanted))


def records_read(stack: LocalStack, job: str) -> int:
    """How many records the sources of a job have read since its start."""
    samples = _samples(stack, job, "operator_numRecordsIn")
    return sum(value for found, value in samples if 'operator_name="Source:' in found)


def _samples(stack: LocalStack, job: str, name: str) -> Iterator[tuple[str, int]]:
    """Labels and value of each sample of a metric of a job."""
    pattern = re.compile(rf"^\w+_{name}\{{(.*)\}} (\S+)$", re.MULTILINE)
    for task_manager in stack.task_managers():
        for labels, value in pattern.findall(get_text(task_manager.ports["metrics"], "/metrics")):
            if f'job_id="{job}"' in labels:
                yield labels, int(float(value))
