"""What a running job counts, read where Prometheus reads it."""

import re

from jobs.local_http import get_text
from jobs.local_stack import LocalStack


def job_metric(stack: LocalStack, job: str, name: str, **labels: str) -> int:
    """The sum of a metric of the functions, such as `scored`, over all workers of a job, where it has these labels."""
    pattern = re.compile(rf"^\w+_{name}\{{(.*)\}} (\S+)$", re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in {"job_id": job, **labels}.items()]
    return sum(
        int(float(value))
        for task_manager in stack.task_managers()
        for found, value in pattern.findall(get_text(task_manager.ports["metrics"], "/metrics"))
        if all(label in found for label in wanted)
    )
