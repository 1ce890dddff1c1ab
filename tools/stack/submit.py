"""Submit jobs to the cluster of `make up`: make submit JOBS='score_clicks measure_sessions' CONF=conf/mine.yaml.

It is `flink run -pym jobs.JOB -pyfs dist/*.whl --conf FILE`, with the broker and the cluster of this machine.
"""

import argparse
import sys
from pathlib import Path

from jobs.common.settings import ConfigError, load_settings
from tools.paths import CONF, STACK
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack, StackError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.stack.submit", description="Submit jobs to the cluster of `make up`.")
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="a job module in jobs/, such as score_clicks")
    parser.add_argument("--conf", type=Path, default=CONF, help="settings file (default: conf/local.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dir", type=Path, default=STACK, help="stack directory (default: build/local)")
    options = parser.parse_args(arguments)
    try:
        stack = LocalStack(options.dir)
        for name in options.jobs:
            print(f"{name}: ", end="", flush=True)
            overrides = [*options.set, *_paths(options.conf, options.set)]
            job = flink_client.submit(stack, options.conf.resolve(), overrides, module=f"jobs.{name}")
            flink_client.wait_until_running(stack, job)
            print(f"running as job {job}", flush=True)
    except (ConfigError, StackError, flink_client.JobError) as error:
        print(f"\nsubmit: {error}", file=sys.stderr)
        return 1
    print(f"Flink: {stack.rest_url}")
    return 0


def _paths(conf: Path, overrides: list[str]) -> list[str]:
    """Overrides with the paths of the settings as they are from here: `flink run` starts in another directory."""
    settings = load_settings(conf, overrides)
    paths = {
        "model.bundle": settings.model.bundle,
        "clicks.declaration": settings.clicks.declaration,
        "clicks.mapping": settings.clicks.mapping,
    }
    if settings.model.registry and ":/" not in settings.model.registry:  # otherwise it is a URL
        paths["model.registry"] = settings.model.registry
    return [f"{key}={Path(path).resolve()}" for key, path in paths.items() if path is not None]


if __name__ == "__main__":
    sys.exit(main())
