"""An inspection in words: facts in a few lines, then a line per problem with its remedy."""

from collections import Counter
from datetime import UTC, datetime

from click import format_filename

from training.data.intake import counted
from training.data.summary import (
    MAX_NAMES,
    RELIABLE_USERS,
    doubts,
    in_words,
    limits_in_words,
    names_in_words,
    why_none_is_scored,
)
from training.inspection.devices import BUSY_DEVICE, MANY_USERS
from training.inspection.inspection import Inspection
from training.inspection.repeats import MANY_CLASHES
from udfs.contracts.packed_events import EVENT_KINDS

USERS_SHOWN = 5


def facts(found: Inspection) -> list[tuple[str, str]]:
    """What the data holds: a name and a value per line."""
    summary, intake = found.summary, found.summary.intake
    left_out = intake.ignored.total()
    lines = [
        ("rows", f"{summary.read + left_out:,}"),
        ("accepted", f"{summary.accepted:,}"),
        (
            "not accepted",
            f"{summary.rejected.total():,}" + (f" ({in_words(summary.rejected)})" if summary.rejected else ""),
        ),
    ]
    if left_out:
        lines.append(("left out", f"{left_out:,}, as the mapping says"))
    if not summary.accepted:
        return lines
    kinds = Counter(dict(zip(EVENT_KINDS, found.kinds.tolist())))
    own = Counter({name: summary.names[name] for name in sorted(summary.own_kinds) if summary.names[name]})
    kinds += own
    kinds[EVENT_KINDS[0]] -= own.total()
    counts = ", ".join(f"{count:,} {name}" for name, count in kinds.most_common() if count)
    times, days = sorted(found.users.values()), len(found.by_day)
    first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (summary.first_ms, summary.last_ms))
    fields = [f"{name} {count / summary.accepted:.0%}" for name, count in found.filled.items() if count]
    lines += [
        ("events", counts),
        ("users", f"{len(found.users):,}, {times[len(times) // 2]:,} events in the median, {times[-1]:,} at most"),
        (
            "time",
            f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, {days:,} day{'s' * (days != 1)} with events",
        ),
        ("fields", ", ".join(fields) or "no optional field is filled"),
    ]
    if repeats := _repeats(found):
        lines.append(("repeats", repeats))
    if found.devices.count:
        lines.append(("logins", _logins(found)))
    if found.label is not None:
        rate = f" ({found.positives / found.examples:.2%})" if found.examples else ""
        lines += [
            ("label", str(found.label)),
            (
                "positive",
                f"{found.positives:,} of {found.examples:,} examples{rate}, of {counted(found.positive_users, 'user')}",
            ),
        ]
    return lines


def _repeats(found: Inspection) -> str:
    """How many events repeat an id, and how they count."""
    parts, repeats = [], found.repeats
    if repeats.events:
        parts.append(
            f"events that repeat an event_id of the same user: {repeats.events:,} (the job leaves out "
            f"{repeats.left_out_events:,} of them with clicks.duplicates_within: 1 h, the default)"
        )
    if repeats.orders:
        parts.append(
            f"purchases that repeat a transaction_id of the same user: {repeats.orders:,} (an order counts once, with "
            "the value of its first row)"
        )
    return "; ".join(parts)


def _logins(found: Inspection) -> str:
    """What following logins would do."""
    devices = found.devices
    if not devices.anonymous_events:
        return (
            "none can be followed: no event has its anonymous_id as user_id, so clicks.follow_logins changes nothing. "
            "Before the login, send the anonymous_id as user_id too"
        )
    if not devices.user_events:
        return (
            "none: all events with an anonymous_id have it as user_id, so clicks.follow_logins changes nothing. After "
            "the login, send the user's own id as user_id"
        )
    return f"{devices.with_login:,} of {counted(devices.count, 'anonymous id')} with events before and after a login"


def problems(found: Inspection) -> list[str]:
    """One line per problem with its remedy; lines that begin with blanks belong to the one before them."""
    summary = found.summary
    lines = [*summary.intake.problems()]
    broken = Counter({reason: count for reason, count in summary.rejected.items() if reason != "unfit_row"})
    if broken:
        records = counted(broken.total(), "record breaks", "records break")
        lines.append(f"{records} the clicks contract: {in_words(broken)}")
        lines += [f"  {message}" for message in summary.rejections]
    if unknown := summary.unknown_names:
        events = counted(unknown.total(), "event has a name that counts", "events have names that count")
        lines.append(
            f"{events} as `other`: {names_in_words(unknown)}; map what they mean under values.event_name, or "
            "declare kinds of your own in conf/features.yaml"
        )
    if len(summary.names) >= MAX_NAMES:
        lines.append(f"event_name has {MAX_NAMES:,} values or more: is it the right column?")
    lines += _id_problems(found) + _device_problems(found)
    if summary.copies:
        events = counted(summary.copies, "event is", "events are")
        lines.append(
            f"{events} identical to another event of the same user ({summary.copies / summary.accepted:.1%} of all): "
            "was something exported twice? If so, remove equal rows (`sort -u`, SELECT DISTINCT): training and the job "
            "leave out only those whose event_id or transaction_id repeats"
        )
    if found.placeholders:
        shown = ", ".join(f"{user} ({count:,})" for user, count in found.placeholders.most_common(USERS_SHOWN))
        lines.append(f"user ids that are probably placeholders: {shown}; list them under ignored_users to skip them")
    if found.busiest:
        user, count = found.busiest
        lines.append(
            f"user {user} has {count / summary.accepted:.0%} of all events: a crawler, a test account, or an id that "
            "many users share; list it under ignored_users to leave it out"
        )
    if found.bots:
        lines.append(_bots(found))
    if found.skipped_files:
        names = ", ".join(format_filename(path.name) for path in found.skipped_files[:USERS_SHOWN])
        files = counted(len(found.skipped_files), "file matches", "files match")
        lines.append(f"{files} no pattern of the mapping; left out: {names}")
    lines += doubts(summary, summary.calendar_features)
    return lines + _label_problems(found)


def _bots(found: Inspection) -> str:
    """Which users look like bots, and what follows."""
    summary = found.summary
    most = sorted(found.bots, key=lambda user: -found.users[user])
    shown = ", ".join(f"{user} ({found.users[user]:,})" for user in most[:USERS_SHOWN])
    more = f" and {len(most) - USERS_SHOWN:,} more" if len(most) > USERS_SHOWN else ""
    return (
        f"{len(most):,} of {counted(len(found.users), 'user')} look like bots, with "
        f"{summary.bot_events / summary.accepted:.0%} of all events: {shown}{more} ({limits_in_words(summary.bots)}). "
        "Training leaves their events out, and KPIs count their sessions apart; bots in the settings has the limits"
    )


def _id_problems(found: Inspection) -> list[str]:
    """Ids that do not identify what they should."""
    repeats, accepted = found.repeats, found.summary.accepted
    purchases = int(found.kinds[EVENT_KINDS.index("purchase")]) if accepted else 0
    lines = []
    if _are_many(repeats.clashing_events, accepted):
        lines.append(
            f"event_id does not identify events: {repeats.clashing_events / accepted:.0%} of all events have the "
            "event_id of another event of the same user, but another name or item. Its column is probably a counter or "
            "the number of a session. Leave event_id out of the mapping: otherwise such events are lost as duplicates "
            "if they are less than clicks.duplicates_within apart"
        )
    if _are_many(repeats.clashing_orders, purchases):
        lines.append(
            f"transaction_id does not identify orders: {repeats.clashing_orders / purchases:.0%} of all purchases have "
            "the transaction_id of an earlier purchase of the same user, but another time and another value or item. "
            "Its column is probably the number of a session or of a customer. Leave transaction_id out of the mapping: "
            "otherwise these purchases are lost, because an order counts once"
        )
    if _are_many(repeats.split_orders, purchases):
        lines.append(
            f"the value of orders is incomplete: {repeats.split_orders / purchases:.0%} of all purchases have the "
            "transaction_id and the time of another purchase of the same user, but another value. Each row is probably "
            "an item of an order, and an order counts once, with the value of its first row. Map value to the total of "
            "the order, or leave transaction_id out of the mapping"
        )
    return lines


def _device_problems(found: Inspection) -> list[str]:
    """Anonymous ids that no device can have."""
    if not found.devices.shared:
        return []
    ids = counted(len(found.devices.shared), "anonymous_id does", "anonymous ids do")
    shown = ", ".join(f"{one} ({counted(users, 'user')})" for one, users in found.shared_devices.items())
    more = len(found.devices.shared) - len(found.shared_devices)
    return [
        f"{ids} not identify a device: {shown}{f' and {more:,} more' if more else ''}. Each has more than "
        f"{MANY_USERS} users, or several users and {BUSY_DEVICE:.0%} of all events. List them under ignored_users, or "
        "leave anonymous_id out of the mapping: otherwise clicks.follow_logins gives the events of one user to another"
    ]


def _are_many(clashes: int, of: int) -> bool:
    return clashes > 0 and clashes >= MANY_CLASHES * of


def _label_problems(found: Inspection) -> list[str]:
    label = found.label
    if label is None or not found.summary.accepted:
        return []
    kinds = dict(zip(EVENT_KINDS, found.kinds.tolist()))
    if missing := [name for name in label.events or () if not kinds[name]]:
        return [f"no {' or '.join(missing)} in the data: no model can be trained for the label {label}"]
    if why := why_none_is_scored(label, found.summary.names):
        return [f"no event to train on: {why}"]
    if not found.examples:
        return [f"no event has {label.horizon} of data after it: use data of more time, or a shorter horizon"]
    if not found.positives or found.positives == found.examples:
        return [f"{'none' if not found.positives else 'each'} of the examples is positive: choose another label"]
    if found.positive_users < RELIABLE_USERS:
        users = counted(found.positive_users, "user has", "users have")
        return [f"only {users} a positive example: with fewer than {RELIABLE_USERS}, no result is reliable"]
    return []
