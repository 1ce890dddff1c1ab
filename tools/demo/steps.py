"""Steps shared by the demo and the day in fast motion: print progress, train, send, wait."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from kafka import KafkaProducer

from jobs.common.settings import Settings
from jobs.ops.replay.producer import FOR_LATENCY, Sent, send_at_once
from tools.console import console, note, step
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack, StackError
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.sources import Record, profile_records
from training.modeling.settings import Training
from training.simulation.clickstream import Clickstream
from training.simulation.examples import simulated_examples
from training.simulation.malformed import with_broken
from training.train import summary

BROKEN_SHARE = 0.005
DRAIN_SECONDS = 60


def train(stream: Clickstream, training: Training, version: str, models: Path) -> Path:
    """Train on simulated clicks; returns the bundle's directory."""
    note(f"{len(stream):,} clicks")
    trained = train_model(simulated_examples(stream), training, version=version, log=note)
    write_bundle(models / version, trained.manifest, trained.files)
    for line in summary(trained.manifest).splitlines():
        note(line)
    return models / version


def show_dashboard(stack: LocalStack, conf: Path, overrides: Sequence[str]) -> None:
    step("Starting the dashboard")
    url = stack.start_dashboard(conf, overrides)
    console.print(f"    [bold]open {url}[/bold]")


def send_profiles(stack: LocalStack, settings: Settings, stream: Clickstream) -> None:
    check(send_at_once(stack.bootstrap_servers, settings.topics.profiles, profile_records(stream.profiles)))


def click_producer(stack: LocalStack) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=stack.bootstrap_servers, max_request_size=4_000_000, **FOR_LATENCY)


class _Placed(msgspec.Struct):
    user_id: str
    event_time: int


def demo_records(stream: Clickstream) -> Iterator[Record]:
    """The clicks with their event times, and some broken copies without one, in order of arrival."""
    key = None
    for value, reason in with_broken(stream.clicks(), BROKEN_SHARE):
        if reason is not None:
            yield key, value, None
            continue
        click = msgspec.json.decode(value, type=_Placed)
        key = click.user_id.encode()
        yield key, value, click.event_time


def check(sent: Sent) -> None:
    if sent.interrupted:
        raise KeyboardInterrupt
    if sent.failures:
        raise StackError(f"Kafka accepted {sent.delivered} records and rejected {sent.failed}: {dict(sent.failures)}")


def await_answers(answered: Callable[[], int], sent: int, seconds: float = DRAIN_SECONDS) -> None:
    """Wait until there are as many scores and dead letters as clicks."""
    what = f"a score or dead letter for each of {sent:,} clicks; check the job's exceptions in the Flink log"
    flink_client.wait_for(lambda: answered() >= sent, seconds, what)
