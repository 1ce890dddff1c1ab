"""Whether propensities are what then happens."""

import numpy as np

from training.simulation.clickstream import Clickstream
from udfs.features.declaration import SESSION_GAP_MS


def calibration_errors(stream: Clickstream, propensity: np.ndarray, wanted: np.ndarray | bool = True) -> list[float]:
    """For bins of propensity, how many standard errors the labels of the wanted events, bool[n], are off.

    Labels within a session hang together, so only the first event of each session in a bin counts. These are
    independent given their propensities, as no label reaches into the next session.
    """
    labels, usable = stream.labels()
    order = np.lexsort((stream.events["time_ms"], stream.events["user"]))
    user, time_ms = stream.events["user"][order], stream.events["time_ms"][order]
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(time_ms, prepend=0) > SESSION_GAP_MS)
    session = np.cumsum(begins)
    rows = (usable & wanted)[order]
    session, labels, propensity = session[rows], labels[order][rows], propensity[order][rows]
    bins = np.digitize(propensity, [0.001, 0.01, 0.02, 0.05, 0.15, 0.4])
    errors = []
    for number in range(1, 7):
        chosen = np.flatnonzero(bins == number)
        first = chosen[np.unique(session[chosen], return_index=True)[1]]
        expected = propensity[first]
        if len(first):
            errors.append((labels[first] - expected).sum() / np.sqrt((expected * (1 - expected)).sum()))
    return errors
