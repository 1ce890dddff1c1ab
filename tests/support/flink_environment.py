"""Which cluster the jobs of this process's JVM are submitted to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyflink.common import Configuration
from pyflink.java_gateway import get_gateway


@contextmanager
def submitted_to_cluster(options: Mapping[str, object]) -> Iterator[None]:
    """Jobs go to the cluster at `rest.address` and `rest.port`, as those of `flink run` do.

    Otherwise, each would start a cluster of its own in this JVM.
    """
    java = get_gateway().jvm
    flink = java.org.apache.flink
    contexts = flink.client.program.StreamContextEnvironment
    class_loader = java.Thread.currentThread().getContextClassLoader()
    executors = flink.core.execution.DefaultExecutorServiceLoader()
    configuration = flink_configuration({**options, "execution.target": "remote"})
    contexts.setAsContext(executors, configuration._j_configuration, class_loader, False, True)
    try:
        yield
    finally:
        contexts.unsetAsContext()


def flink_configuration(options: Mapping[str, object]) -> Configuration:
    configuration = Configuration()
    for key, value in options.items():
        configuration.set_string(key, str(value).lower() if isinstance(value, bool) else str(value))
    return configuration
