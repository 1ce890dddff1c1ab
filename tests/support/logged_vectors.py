"""A feature_log and outcomes out of the simulator, for tests of what reads them."""

from base64 import b64encode
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from training.data.dataset import arrange, read_clicks
from training.simulation.clickstream import Simulation, simulate
from udfs.features.computer import FeatureComputer
from udfs.models.bundle import load_bundle

HORIZON_MS = 600_000


def logged_vectors(bundle_directory: Path, config: Simulation) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Event time, user, score and features of simulated clicks, in the order of their arrival; and the features' names.

    In the second half one feature is lost, and a third of the events come from a device that was not there before.
    """
    stream = simulate(config)
    data = arrange(read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms))
    names = load_bundle(bundle_directory, None).manifest.features
    order = np.argsort(data.positions)
    frame = pd.DataFrame(data.features(FeatureComputer(names), order), columns=list(names))
    frame["event_time"] = data.records["time_ms"][order].astype(int)
    frame["user_id"] = np.array(data.user_ids, object)[data.user[order]]
    frame["score"] = (frame["event_time"] % 997 / 997).astype(np.float32)
    shifted = frame["event_time"] > frame["event_time"].median()
    frame.loc[shifted, "product_views_1m"] = np.nan
    frame.loc[shifted & (frame["event_time"] % 3 == 0), "device"] = 9.0
    return frame, names


def feature_log(frame: pd.DataFrame, names: tuple[str, ...], version: str) -> list[dict]:
    """The vectors as the topic has them, of a model of this version with these features."""
    matrix = frame[list(names)].to_numpy(np.float32)
    return [
        {
            "user_id": user,
            "event_time": time_ms,
            "score": float(score),
            "model_version": version,
            "features": b64encode(vector.tobytes()).decode(),
        }
        for user, time_ms, score, vector in zip(frame["user_id"], frame["event_time"], frame["score"], matrix)
    ]


def outcomes(frame: pd.DataFrame, version: str) -> pd.DataFrame:
    """An outcome of each vector, some of which are not evaluated."""
    return pd.DataFrame(
        {
            "user_id": frame["user_id"],
            "model_version": version,
            "matured_at": frame["event_time"] + HORIZON_MS,
            "label": frame["event_time"] % 7 == 0,
            "evaluated": frame["event_time"] % 5 != 0,
        }
    )
