"""Start, stop and show the local stack: `python -m tools.stack up|down|status [--dir build/local]`."""

import argparse
import sys
from pathlib import Path

from tools.paths import STACK
from tools.stack.local_stack import LocalStack, StackError
from tools.stack.processes import ProcessError, is_running


def _up(stack: LocalStack) -> int:
    if stack.processes and all(map(is_running, stack.processes.values())):
        print("already running")
        return _status(stack)
    print(f"==> Starting Kafka and Flink (logs in {stack.directory / 'log'})")
    stack.start()
    return _status(stack)


def _down(stack: LocalStack) -> int:
    running = [process.name for process in stack.processes.values() if is_running(process)]
    stack.stop()
    print(f"stopped {', '.join(running)}" if running else "nothing is running")
    return 0


def _status(stack: LocalStack) -> int:
    """Print each process. The exit code is 0 when there are some and all of them run, else 1."""
    if not stack.processes:
        print("not running; start it with `make up`")
        return 1
    running = [is_running(process) for process in stack.processes.values()]
    for process, runs in zip(stack.processes.values(), running, strict=True):
        addresses = "  ".join(_address(purpose, port) for purpose, port in process.ports.items())
        print(f"{process.name:14} {'running' if runs else 'exited'}  pid {process.pid}  {addresses}")
        if not runs:
            print(f"{'':14} log: {process.log}")
    return 0 if all(running) else 1


def _address(purpose: str, port: int) -> str:
    forms = {"rest": "http://127.0.0.1:{}", "metrics": "http://127.0.0.1:{}/metrics", "page": "http://127.0.0.1:{}"}
    return f"{purpose} {forms.get(purpose, '127.0.0.1:{}').format(port)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.stack", description="Manage a local Kafka broker and Flink cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (("up", "start Kafka and Flink"), ("down", "stop both"), ("status", "show the processes")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--dir", type=Path, default=STACK, help="stack directory (default: build/local)")
        if name == "up":
            command.add_argument("--task-managers", type=int, default=2, help="number of TaskManagers (default: 2)")
            command.add_argument("--slots", type=int, default=2, help="slots per TaskManager (default: 2)")
            command.add_argument(
                "--task-manager-memory", default="3456m", help="memory per TaskManager (default: 3456m)"
            )
            command.add_argument(
                "--partitions",
                type=int,
                default=4,
                help="default partitions per topic (default: 4)",
            )
            command.add_argument("--brokers", type=int, default=1, help="number of Kafka brokers (default: 1)")
    parsed = vars(parser.parse_args(arguments))
    run = {"up": _up, "down": _down, "status": _status}[parsed.pop("command")]
    try:
        return run(LocalStack(parsed.pop("dir"), prefer_default_ports=True, **parsed))
    except (StackError, ProcessError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
