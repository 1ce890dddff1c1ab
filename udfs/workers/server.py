"""A worker's life: connect, load the handler, answer batches, end with the operator."""

import ctypes
import gc
import logging
import pickle
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from udfs.workers.metrics import MetricGroup, Metrics
from udfs.workers.protocol import Channel, Rows, SharedMemory

GAUGE_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1  # of Linux' prctl

log = logging.getLogger(__name__)


class Handler(ABC):
    """The work of a worker. The client sends it to the workers pickled, so it is plain data until `open`."""

    @abstractmethod
    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        """Get ready, once, in the worker."""

    @abstractmethod
    def process(self, rows: Rows) -> list[bytes]:
        """The records that answer a batch, in the form that Channel.answer takes."""

    def close(self) -> None:  # noqa: B027, most have nothing to end
        """End threads, when the operator has ended."""


def main(directory: Path) -> int:
    """Serve the operator that has put `memory`, `bell` and `handler` into the directory; returns the exit code."""
    _die_with_parent()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    memory = SharedMemory(directory / "memory")
    channel = Channel(directory / "bell", memory)
    try:
        handler: Handler = pickle.loads((directory / "handler").read_bytes())
        serve(handler, channel, memory)
    except Exception:
        text = traceback.format_exc()
        log.error("%s", text)
        with suppress(ConnectionError):  # the operator has ended and can't read the message
            channel.fail(text)
        return 1
    return 0


def serve(handler: Handler, channel: Channel, memory: SharedMemory) -> None:
    """Answer batches until the operator closes the socket."""
    metrics = Metrics(memory.metrics)
    handler.open(memory, metrics.group().add_group("intent"))
    metrics.update_gauges()
    gc.collect()
    gc.freeze()  # what is there now stays: no collection has to look at it again
    channel.declare(metrics.take_declared())
    channel.ready()
    ended = threading.Event()
    threading.Thread(target=_keep_gauges, args=(metrics, ended), name="gauges", daemon=True).start()
    try:
        for rows in channel.batches():
            records = handler.process(rows)
            metrics.update_gauges()
            channel.declare(metrics.take_declared())
            channel.answer(records)
    finally:
        ended.set()
        handler.close()


def _keep_gauges(metrics: Metrics, ended: threading.Event) -> None:
    """Update gauges without a batch, too: a worker without traffic also switches to a new model."""
    while not ended.wait(GAUGE_SECONDS):
        metrics.update_gauges()


def _die_with_parent() -> None:
    """End when the task's thread ends, though Python may be deep in a library that does not look at the socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
