"""Check what the score job will find with some settings: `python -m jobs.ops.doctor --conf FILE [--flink URL]`.

Exit code: 0 nothing is missing; 1 something is; 2 the settings can't be read.
"""

import argparse
import sys
from pathlib import Path

from jobs.common.settings import ConfigError
from jobs.ops.doctor.target import check_target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="jobs.ops.doctor", description="Check Kafka, model and cluster of the score job with these settings."
    )
    parser.add_argument("--conf", type=Path, required=True, help="settings file, for example conf/local.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. state.ttl=30d")
    parser.add_argument("--flink", metavar="URL", help="REST address of the cluster, http://host:8081")
    options = parser.parse_args(arguments)
    try:
        findings = list(check_target(options.conf, options.set, options.flink))
    except ConfigError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    for finding in findings:
        print(finding)
    return 1 if any(finding.remedy for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
