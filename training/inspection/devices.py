"""The anonymous ids of clicks and the users that they occur with: what following logins would do with them."""

from dataclasses import dataclass

import numpy as np

#: A device that more users log in on is none: a constant, an id of a session's server, or a terminal in a shop.
MANY_USERS = 20
#: So is one with so many of all events and several users.
BUSY_DEVICE = 0.05
NO_DEVICE = -1


@dataclass(frozen=True)
class Devices:
    """Counts of anonymous ids, and those of too many users."""

    anonymous_events: int = 0  # events whose user_id is the anonymous_id
    user_events: int = 0  # further events with an anonymous_id
    count: int = 0
    with_login: int = 0  # ids with events of both kinds
    shared: tuple[tuple[int, int], ...] = ()  # code of the id, and number of its users; that of most events first


def find_devices(user: np.ndarray, device: np.ndarray, busy_events: float) -> Devices:
    """Count over n events, given by codes int[n] from one list of ids; a device may be NO_DEVICE.

    A device with several users is shared if it has `busy_events`.
    """
    has_device = device != NO_DEVICE
    if not has_device.any():
        return Devices()
    pairs, sizes = np.unique(device[has_device].astype(np.int64) << 32 | user[has_device], return_counts=True)
    devices, place = np.unique(pairs >> 32, return_inverse=True)
    is_anonymous = pairs >> 32 == pairs & 0xFFFF_FFFF
    users = np.bincount(place[~is_anonymous], minlength=len(devices))
    anonymous = np.bincount(place[is_anonymous], minlength=len(devices))
    events = np.bincount(place, sizes)
    is_shared = (users > MANY_USERS) | ((users > 1) & (events >= busy_events))
    shared = np.flatnonzero(is_shared)
    shared = shared[np.argsort(-events[shared], kind="stable")]
    return Devices(
        anonymous_events=int(sizes[is_anonymous].sum()),
        user_events=int(sizes[~is_anonymous].sum()),
        count=len(devices),
        with_login=int(np.count_nonzero((users > 0) & (anonymous > 0))),
        shared=tuple(zip(devices[shared].tolist(), users[shared].tolist())),
    )
