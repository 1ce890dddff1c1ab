package intent;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.metrics.Metric;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.clusterframework.types.ResourceID;
import org.apache.flink.runtime.executiongraph.ExecutionGraphTestUtils;
import org.apache.flink.runtime.metrics.groups.TaskManagerMetricGroup;
import org.apache.flink.runtime.metrics.groups.TaskMetricGroup;
import org.apache.flink.runtime.metrics.util.TestingMetricRegistry;
import org.apache.flink.runtime.operators.testutils.MockEnvironment;
import org.apache.flink.runtime.operators.testutils.MockEnvironmentBuilder;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.util.TestingTaskManagerRuntimeInfo;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.apache.flink.util.OutputTag;

/** An operator in Flink's test harness, driven in the order in which a task drives it. */
final class Task {
    static final String OPERATOR = "score clicks";
    private static final String METRICS = "host.taskmanager.tm.job." + OPERATOR + ".0.";

    final OneInputStreamOperatorTestHarness<byte[], byte[]> harness;
    /** By name, with the groups that are the worker's. */
    final Map<String, Metric> metrics = new HashMap<>();

    private final MockEnvironment environment;
    private long checkpoint;
    private boolean isClosed;

    /** One of the subtasks of an operator. */
    record Subtask(int index, int parallelism, int maxParallelism) {
        static final Subtask ONLY = new Subtask(0, 1, 1);
    }

    Task(BatchOperator operator, Subtask subtask, StateBackend backend, Path temporary) throws Exception {
        environment = new MockEnvironmentBuilder()
                .setManagedMemorySize(32 << 20)
                .setTaskManagerRuntimeInfo(new TestingTaskManagerRuntimeInfo(new Configuration(), temporary.toFile()))
                .setMaxParallelism(subtask.maxParallelism)
                .setParallelism(subtask.parallelism)
                .setSubtaskIndex(subtask.index)
                .setMetricGroup(metricGroup())
                .build();
        harness = operator instanceof KeyedBatchOperator
                ? new KeyedOneInputStreamOperatorTestHarness<>(operator, new Frame.Key(), Types.STRING, environment)
                : new OneInputStreamOperatorTestHarness<>(operator, environment);
        harness.getStreamConfig().setOperatorName(OPERATOR);
        harness.setStateBackend(backend);
    }

    private TaskMetricGroup metricGroup() {
        TestingMetricRegistry registry = TestingMetricRegistry.builder()
                .setRegisterConsumer((metric, name, group) -> {
                    String identifier = group.getMetricIdentifier(name);
                    if (identifier.startsWith(METRICS)) {
                        metrics.put(identifier.substring(METRICS.length()), metric);
                    }
                })
                .build();
        return TaskManagerMetricGroup.createTaskManagerMetricGroup(registry, "host", new ResourceID("tm"))
                .addJob(new JobID(), "job")
                .addTask(ExecutionGraphTestUtils.createExecutionAttemptId(), "task");
    }

    Task open() throws Exception {
        return open(null);
    }

    Task open(OperatorSubtaskState restored) throws Exception {
        harness.initializeState(restored);
        harness.open();
        return this;
    }

    Task send(String... rows) throws Exception {
        for (String row : rows) {
            send(row.getBytes());
        }
        return this;
    }

    Task send(byte[] row) throws Exception {
        harness.processElement(new StreamRecord<>(row));
        return this;
    }

    Task setTime(long timeMs) throws Exception {
        harness.setStateTtlProcessingTime(timeMs);
        harness.setProcessingTime(timeMs);
        return this;
    }

    OperatorSubtaskState checkpoint() throws Exception {
        checkpoint++;
        harness.prepareSnapshotPreBarrier(checkpoint);
        return harness.snapshot(checkpoint, checkpoint);
    }

    /** The end of the input. */
    void finish() throws Exception {
        harness.endInput();
        harness.getOperator().finish();
    }

    /** What a task does at its end, whether it is finished, has failed or is cancelled. */
    void close() throws Exception {
        if (!isClosed) {
            isClosed = true;
            try (MockEnvironment closed = environment) {
                if (harness.getOperator() != null) {
                    harness.getOperator().close();
                }
            }
        }
    }

    /** The records of the main output, and watermarks, since the last call. */
    List<byte[]> takeRecords() {
        return take(harness.getOutput());
    }

    List<String> take() {
        return texts(takeRecords());
    }

    List<String> takeFrom(String sideOutput) {
        OutputTag<byte[]> tag = new OutputTag<>(sideOutput, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        Queue<StreamRecord<byte[]>> records = harness.getSideOutput(tag);
        return records == null ? List.of() : texts(take(records));
    }

    @SuppressWarnings("unchecked")
    private static List<byte[]> take(Queue<?> output) {
        List<byte[]> taken = new ArrayList<>();
        for (Object element = output.poll(); element != null; element = output.poll()) {
            taken.add(element instanceof Watermark mark
                    ? ("watermark " + mark.getTimestamp()).getBytes()
                    : ((StreamRecord<byte[]>) element).getValue());
        }
        return taken;
    }

    private static List<String> texts(List<byte[]> records) {
        return records.stream().map(String::new).toList();
    }
}
