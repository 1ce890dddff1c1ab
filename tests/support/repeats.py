"""Clicks as a shop may send them: some without an id, some again, some orders reported twice."""

from collections import Counter

_MINUTE_MS = 60_000
_LATER = 150  # clicks between a click and its late copy


def with_repeats(clicks: list[dict]) -> tuple[list[dict], list[int]]:
    """The records of clicks and of what is sent again, and the position in them of each click's first record.

    Event ids number the clicks of a user, of which every fifth has none. Two of three purchases name their order, which
    another event reports again: in the same session, or in what would be one of its own.
    """
    records, positions, copies = [], [], []
    purchases, by_user = 0, Counter()
    for number, click in enumerate(clicks):
        by_user[click["user_id"]] += 1
        count = by_user[click["user_id"]]
        sent = click | {"event_id": f"e{count}" if count % 5 else None}
        again = []
        if click["event_name"] == "purchase":
            purchases += 1
            if purchases % 3:
                sent["transaction_id"] = f"t{number}"
                minutes = 20 if purchases % 3 == 1 else 300
                time_ms = click["event_time"] + minutes * _MINUTE_MS
                again = [{**sent, "event_id": f"reload-{count}", "event_time": time_ms}]
        positions.append(len(records))
        records.append(sent)
        if sent["event_id"]:
            if number % 3 == 0:
                again.append(sent)
            if number % 4 == 1:
                copies.append((number + _LATER, sent))
        records += again
        while copies and copies[0][0] <= number:
            records.append(copies.pop(0)[1])
    return [*records, *(copy for _, copy in copies)], positions
