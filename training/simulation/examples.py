"""Examples of a simulated clickstream."""

from dataclasses import replace

import msgspec
import numpy as np

from training.data.dataset import arrange, read_clicks, read_profiles
from training.data.examples import Examples, make_examples
from training.data.population import fill_events
from training.simulation.clickstream import Clickstream
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.mapping.topic import ClickTopic
from udfs.measurement.labels import CONVERTED, Label


def simulated_examples(
    stream: Clickstream, label: Label = CONVERTED, history_length: int = 64, declaration: Declaration = STANDARD
) -> Examples:
    """Examples of a simulated stream, by way of the bytes that Kafka would carry; `offset` numbers its events."""
    topic = ClickTopic(layout=declaration.layout)
    clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms, topic)
    layout = declaration.layout
    if layout.population_columns:
        filled = fill_events(clicks.records, clicks.user, clicks.user_ids, clicks.arrival_ms, layout)
        clicks = replace(clicks, records=filled)
    data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)), history_length)
    positions = np.arange(len(stream))
    computer = FeatureComputer(None, history_length, declaration)
    return make_examples(data, label, computer, np.zeros(len(stream), np.int64), positions)
