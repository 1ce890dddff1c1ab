"""Few users against a hundred times as many: rate, memory and state.

In both runs a tenth of the users are busy at a time, the workers have room for all of these, and the same number of
clicks is scored, most of them before the rate is taken: by then the job has state of every user.
"""

import re
import time
from collections.abc import Iterator, Sequence

import numpy as np

from tools.bench.context import BenchContext
from tools.bench.rates import MIB, PeakMemory, rate_between
from tools.bench.throughput import reading
from tools.console import note, step
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.metrics import job_metric
from training.data.sources import Record
from udfs.features.declaration import SESSION_GAP_MS

FEW_USERS, MANY_USERS = 20_000, 2_000_000
BUSY_PART = 10  # one of this many users is busy at a time
EVENTS = 5_000_000
COUNTED_FROM, COUNTED_TO = 4_200_000, 4_900_000
PARALLELISM = 2
CACHED_USERS = MANY_USERS // BUSY_PART // PARALLELISM * 6 // 5  # of each worker: its busy ones, and a fifth more
SLOWEST_SECONDS = 1_800  # to the first mark, and from there to the last
TEMPLATES = 200_000  # clicks that sessions are taken from
SESSION_CLICKS = 20  # at most
FIRST_CLICKS = 2  # of a user's first session, at most: or it would take long until all users have been seen
CLICK_GAP_MS = 20_000  # between two clicks of a busy user, on average
BLOCK = 65_536  # draws at once
START_MS = 1_767_571_200_000  # 2026-01-05 UTC
CLICK = re.compile(rb'(.*?"user_id":")[^"]*(".*?"event_id":")[^"]*(".*?"event_time":)\d+(.*)', re.DOTALL)

#: A simulated click without user, event id and time: what is before, between and after them.
Template = tuple[bytes, bytes, bytes, bytes]


def measure(context: BenchContext) -> dict:
    """The figures for few and for many users: events per second, peak memory of TaskManager and workers in MiB, bytes
    per user of a checkpoint, and the size and duration of the last one."""
    sessions = session_templates(context.records[:TEMPLATES])
    return {str(users): _figures(context, sessions, users) for users in (FEW_USERS, MANY_USERS)}


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    table_rows = []
    for users, result in figures.items():
        held = ", ".join(f"{name} {mib:,}" for name, mib in result["mib"].items() if name != "all")
        table_rows += [
            (f"{int(users):,} users, 1 in {BUSY_PART} active at a time", f"{result['events_per_s']:,} events/s"),
            ("  peak memory of TaskManager and workers", f"{result['mib']['all']:,} MiB ({held})"),
            (
                "  checkpoint",
                f"{result['state_bytes_per_user']:,} bytes per user, {result['added_mib']:,} MiB new, "
                f"{result['took_s']} s",
            ),
        ]
    few, many = (figures[str(users)]["events_per_s"] for users in (FEW_USERS, MANY_USERS))
    return [*table_rows, (f"rate with {MANY_USERS:,} users", f"{many / few:.2f} of the rate with {FEW_USERS:,}")]


def _figures(context: BenchContext, sessions: Sequence[Sequence[Template]], users: int) -> dict:
    run = f"scale-{users}"
    overrides = [*reading(f"{run}-clicks", run, PARALLELISM), f"workers.cached_users={CACHED_USERS}"]
    topics = context.create_topics(overrides).topics
    clicks = busy_clicks(sessions, users, users // BUSY_PART, EVENTS)
    context.send(topics.clicks, clicks, EVENTS)
    stack = context.cluster()
    step(f"{users:,} users, {users // BUSY_PART:,} of them active at a time")
    with context.running(overrides) as job:
        memory = PeakMemory(stack.task_managers()[0].pid)
        memory.start()
        try:
            rate = rate_between(
                lambda: job_metric(stack, job, "scored"),
                COUNTED_FROM,
                COUNTED_TO,
                note,
                wait_seconds=SLOWEST_SECONDS,
                max_seconds=SLOWEST_SECONDS,
            )
        finally:
            mib = memory.stop()
        note(f"{rate:,.0f} events/s")
        flink_client.wait_for(
            lambda: job_metric(stack, job, "scored") >= EVENTS, SLOWEST_SECONDS, f"{EVENTS:,} clicks to be scored"
        )
        checkpoint = _next_checkpoint(stack, job)
    return {
        "events_per_s": round(rate),
        "mib": mib,
        "state_bytes_per_user": round(checkpoint["state_size"] / users),
        "added_mib": round(checkpoint["checkpointed_size"] / MIB),
        "took_s": round(checkpoint["end_to_end_duration"] / 1000, 1),
    }


def _next_checkpoint(stack: LocalStack, job: str) -> dict:
    """Wait for a checkpoint that begins from now on; returns Flink's figures of it."""
    since_ms = time.time() * 1000

    def newest() -> dict:
        return stack.rest(f"/jobs/{job}/checkpoints")["latest"]["completed"] or {"trigger_timestamp": 0}

    flink_client.wait_for(lambda: newest()["trigger_timestamp"] >= since_ms, 300, f"a checkpoint of job {job}", 1.0)
    return newest()


def session_templates(records: Sequence[Record]) -> list[list[Template]]:
    """The sessions in simulated clicks, each of at most SESSION_CLICKS."""
    by_user: dict[bytes, list[tuple[int, Template]]] = {}
    for key, value, time_ms in records:
        by_user.setdefault(key, []).append((time_ms, CLICK.fullmatch(value).groups()))
    return [session for clicks in by_user.values() for session in _sessions(clicks)]


def _sessions(clicks: list[tuple[int, Template]]) -> Iterator[list[Template]]:
    """The sessions of a user, cut where there was a pause, and where they get long."""
    session: list[Template] = []
    before_ms = clicks[0][0]
    for time_ms, template in clicks:
        if time_ms - before_ms >= SESSION_GAP_MS or len(session) == SESSION_CLICKS:
            yield session
            session = []
        session.append(template)
        before_ms = time_ms
    yield session


def busy_clicks(
    sessions: Sequence[Sequence[Template]], users: int, busy: int, count: int, seed: int = 1
) -> Iterator[Record]:
    """`count` clicks of a population of users, of whom `busy` are in a session at a time.

    A user who has finished a session is replaced by the next user, and the last one by the first: so activity moves
    through the population. The user of each click is drawn from the busy ones. Time advances so that each busy user
    clicks every CLICK_GAP_MS, on average.
    """
    draw = np.random.default_rng(seed)
    step_ms = CLICK_GAP_MS / busy
    begun = 0  # sessions
    user = [0] * busy  # of each place
    remaining: list[Iterator[Template]] = [iter(())] * busy
    for number in range(count):
        if number % BLOCK == 0:
            places = draw.integers(busy, size=BLOCK).tolist()
        place = places[number % BLOCK]
        template = next(remaining[place], None)
        if template is None:
            user[place] = begun % users
            session = sessions[begun % len(sessions)]
            remaining[place] = iter(session[:FIRST_CLICKS] if begun < users else session)
            template = next(remaining[place])
            begun += 1
        name, time_ms = b"u%d" % user[place], int(START_MS + number * step_ms)
        before, user_to_id, id_to_time, after = template
        yield name, b"%b%b%be%d%b%d%b" % (before, name, user_to_id, number, id_to_time, time_ms, after), time_ms
