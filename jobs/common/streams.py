"""Access to Flink's Java API: sources, sinks and the batch operators, which PyFlink does not offer.

Streams are Java objects here, of raw records (RawRecordReader.java) or frames (Frame.java), both arrays of bytes.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from py4j.java_gateway import JavaObject
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import to_jarray

from jobs.common.settings import WorkerSettings
from udfs.config.durations import duration_ms
from udfs.workers.server import Handler

Stream = JavaObject


@dataclass(frozen=True)
class SlotKind:
    """What a worker keeps for each key: a head, and a body of items; udfs/java/intent/SlotBody.java describes it."""

    new_head: bytes
    body_bytes: int
    new_item: bytes
    earlier: Sequence[tuple[int, int, int, int]]  # layout, bytes of head and item, used bytes of an item
    ttl_ms: int


class Streams:
    """A streaming environment, and methods that add sources, operators and sinks to it."""

    def __init__(self, options: Mapping[str, str], workers: WorkerSettings):
        configuration = Configuration()
        for key, value in options.items():
            configuration.set_string(key, value)
        self.environment = StreamExecutionEnvironment.get_execution_environment(configuration)
        self._workers = workers
        self._jvm = get_gateway().jvm
        self._environment = self.environment._j_stream_execution_environment
        self._flink = self._jvm.org.apache.flink
        self._bytes = self._flink.api.common.typeinfo.PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO

    def kafka_source(self, topic: str, start: str, bounded: bool, properties: Mapping[str, str]) -> Stream:
        """The raw records of a topic from `start` on: committed, earliest or latest."""
        source = self._flink.connector.kafka.source
        offsets = source.enumerator.initializer.OffsetsInitializer
        kafka = self._flink.kafka.shaded.org.apache.kafka
        starts = {
            "committed": lambda: offsets.committedOffsets(kafka.clients.consumer.OffsetResetStrategy.EARLIEST),
            "earliest": offsets.earliest,
            "latest": offsets.latest,
        }
        builder = source.KafkaSource.builder()
        builder.setTopics(to_jarray(self._jvm.String, [topic]))
        builder.setStartingOffsets(starts[start]())
        builder.setProperties(self._properties(properties))
        builder.setDeserializer(self._jvm.intent.RawRecordReader())
        if bounded:
            builder.setBounded(offsets.latest())
        no_watermarks = self._flink.api.common.eventtime.WatermarkStrategy.noWatermarks()
        name = f"read {topic}"
        return self._environment.fromSource(builder.build(), no_watermarks, name).uid(name)

    def collection(self, records: Sequence[bytes]) -> Stream:
        """A stream of given raw records, for tests."""
        java_records = self._jvm.java.util.ArrayList()
        for record in records:
            java_records.add(record)
        return self._environment.fromCollection(java_records, self._bytes)

    def union(self, *streams: Stream) -> Stream:
        """The records of all the streams."""
        first, *others = streams
        return first.union(to_jarray(self._flink.streaming.api.datastream.DataStream, others))

    def batch(self, stream: Stream, name: str, handler: Handler, side_outputs: Sequence[str] = ()) -> dict[str, Stream]:
        """The outputs of workers without state, one for each task: the main one under `name`, and the side outputs."""
        operator = self._jvm.intent.BatchOperator(self._worker(handler), self._names(side_outputs))
        transformed = stream.transform(name, self._bytes, operator).setParallelism(stream.getParallelism())
        return self._outputs(transformed, name, side_outputs)

    def keyed_batch(
        self,
        stream: Stream,
        name: str,
        handler: Handler,
        slot: SlotKind,
        side_outputs: Sequence[str] = (),
    ) -> dict[str, Stream]:
        """Like `batch`, with workers that keep a slot for each key of a stream of frames."""
        keyed = stream.keyBy(self._jvm.intent.Frame.Key(), self._flink.api.common.typeinfo.Types.STRING)
        operator = self._jvm.intent.KeyedBatchOperator(
            self._worker(handler),
            self._workers.cached_users,
            slot.new_head,
            self._body(slot),
            slot.ttl_ms,
            self._names(side_outputs),
        )
        return self._outputs(keyed.transform(name, self._bytes, operator), name, side_outputs)

    def write_to_kafka(
        self, stream: Stream, topic: str, properties: Mapping[str, str], transactional_prefix: str | None
    ) -> None:
        """Write frames to a topic: exactly once with a prefix for transactional ids, else at least once."""
        sink = self._flink.connector.kafka.sink
        guarantee = self._flink.connector.base.DeliveryGuarantee
        builder = sink.KafkaSink.builder()
        builder.setBootstrapServers(properties["bootstrap.servers"])
        builder.setKafkaProducerConfig(self._properties(properties))
        builder.setRecordSerializer(self._jvm.intent.FrameWriter(topic))
        builder.setDeliveryGuarantee(guarantee.EXACTLY_ONCE if transactional_prefix else guarantee.AT_LEAST_ONCE)
        if transactional_prefix:
            builder.setTransactionalIdPrefix(transactional_prefix)
        name = f"write {topic}"
        stream.sinkTo(builder.build()).name(name).uid(name)

    def _body(self, slot: SlotKind) -> JavaObject:
        java = self._jvm.intent.SlotBody
        kind = getattr(self._jvm.intent, "SlotBody$Earlier")
        earlier = to_jarray(kind, [java.earlierLayout(*numbers) for numbers in slot.earlier])
        return java(slot.body_bytes, slot.new_item, earlier)

    def _worker(self, handler: Handler) -> JavaObject:
        workers = self._workers
        python = self._flink.python.util.PythonConfigUtil.extractPythonConfiguration(
            self._environment.getConfiguration()
        )
        return self._jvm.intent.WorkerSettings(
            python,
            pickle.dumps(handler),
            workers.memory_dir,
            workers.batch_rows,
            workers.batch_bytes,
            duration_ms(workers.linger),
            duration_ms(workers.start_timeout),
            duration_ms(workers.answer_timeout),
        )

    def _outputs(self, stream: Stream, name: str, side_outputs: Sequence[str]) -> dict[str, Stream]:
        stream.uid(name)
        tags = {output: self._flink.util.OutputTag(output, self._bytes) for output in side_outputs}
        return {name: stream, **{output: stream.getSideOutput(tag) for output, tag in tags.items()}}

    def _names(self, names: Sequence[str]) -> JavaObject:
        return to_jarray(self._jvm.String, list(names))

    def _properties(self, properties: Mapping[str, Any]) -> JavaObject:
        java_properties = self._jvm.java.util.Properties()
        for key, value in properties.items():
            java_properties.setProperty(key, str(value).lower() if isinstance(value, bool) else str(value))
        return java_properties
