package intent;

import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.python.env.PythonDependencyInfo;
import org.apache.flink.python.env.process.ProcessPythonEnvironmentManager;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.ProcessingTimeService;
import org.apache.flink.util.OutputTag;

/**
 * Hands rows to a Python worker in batches and emits the records that it answers with, each to one of its outputs.
 *
 * <p>A batch goes out when it is full, when its oldest row has waited for the linger time, and before each checkpoint
 * barrier and watermark. While the worker is at work rows queue up in front of the operator, so that under load batches
 * grow by themselves. Without a linger time a row goes out at once, unless the worker has just been at work: each call
 * has its fixed cost, so four times as long as one took has to pass before the next one that is not full.
 */
public class BatchOperator extends AbstractStreamOperator<byte[]> implements OneInputStreamOperator<byte[], byte[]> {
    private static final long serialVersionUID = 1;
    private static final int RECORD_HEADER = 2 * Integer.BYTES;
    /** How long a worker rests between two batches that are not full, as a multiple of what the one before took. */
    private static final int REST = 4;
    /** However long a batch took, rows of the next one wait no longer than this for others. */
    private static final long MAX_REST_NS = TimeUnit.MILLISECONDS.toNanos(5);

    private final WorkerSettings settings;
    private final String[] sideOutputs;

    protected transient SharedMemory memory;
    private transient ProcessPythonEnvironmentManager python;
    private transient Worker worker;
    private transient OutputTag<byte[]>[] tags;
    private transient StreamRecord<byte[]> emitted;
    private transient Worker.Answer answer;
    private transient String name;
    private transient int rows;
    private transient int usedBytes;
    private transient boolean timerIsSet;
    private transient long restsUntilNs;

    /** @param sideOutputs their names; the worker numbers outputs from 0, which is the main one */
    public BatchOperator(WorkerSettings settings, String... sideOutputs) {
        this.settings = settings;
        this.sideOutputs = sideOutputs;
    }

    @Override
    @SuppressWarnings("unchecked")
    public void open() throws Exception {
        super.open();
        tags = new OutputTag[sideOutputs.length];
        for (int output = 0; output < tags.length; output++) {
            tags[output] = new OutputTag<>(sideOutputs[output], PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        }
        emitted = new StreamRecord<>(null);
        answer = new Answer();
        restsUntilNs = nanoTime();
        name = getOperatorConfig().getOperatorName() + " (" + (getRuntimeContext().getTaskInfo().getIndexOfThisSubtask() + 1) + "/"
                + getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks() + ")";
        worker = new Worker(name, settings, slots(), pythonEnvironment(), new WorkerMetrics(getMetricGroup())::register);
        memory = worker.memory();
    }

    /** The slots of a stateful operator. */
    protected SharedMemory.Slots slots() {
        return SharedMemory.Slots.NONE;
    }

    /** Interpreter, files and packages as Flink ships them for the job. */
    private Map<String, String> pythonEnvironment() throws Exception {
        Environment task = getContainingTask().getEnvironment();
        python = new ProcessPythonEnvironmentManager(
                PythonDependencyInfo.create(settings.python(), getRuntimeContext().getDistributedCache()),
                task.getTaskManagerInfo().getTmpDirectories(),
                new HashMap<>(System.getenv()),
                task.getJobID());
        python.open();
        return python.getPythonEnv();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) throws Exception {
        add(element.getValue(), -1);
    }

    /** Whether a row has room in the open batch. */
    protected final boolean hasRoom(byte[] row) {
        return usedBytes + row.length <= memory.bufferBytes;
    }

    /** Add a row to the open batch, with the slot that it is about. */
    protected final void add(byte[] row, int slot) throws Exception {
        if (!hasRoom(row)) {
            flush();
        }
        memory.bytes.putInt(memory.rowSlots + Integer.BYTES * rows, slot);
        if (row.length > memory.bufferBytes) {
            worker.call(row, answer);
            return;
        }
        memory.bytes.put(memory.rows + usedBytes, row);
        usedBytes += row.length;
        memory.bytes.putInt(memory.rowEnds + Integer.BYTES * rows, usedBytes);
        rows++;
        long waitNs = rows == settings.maxRows() ? 0 : lingerNs();
        if (waitNs <= 0) {
            flush();
        } else if (!timerIsSet) {
            setTimer(TimeUnit.NANOSECONDS.toMillis(waitNs));
        }
    }

    /** How much longer a row that comes now waits for others. */
    private long lingerNs() {
        return settings.lingerMs() == 0
                ? restsUntilNs - nanoTime()
                : TimeUnit.MILLISECONDS.toNanos(settings.lingerMs());
    }

    /** Tests have another clock. */
    long nanoTime() {
        return System.nanoTime();
    }

    private void setTimer(long waitMs) {
        timerIsSet = true;
        ProcessingTimeService clock = getProcessingTimeService();
        clock.registerTimer(clock.getCurrentProcessingTime() + waitMs, time -> {
            timerIsSet = false;
            flush();
        });
    }

    /** Send the open batch, and emit what the worker answers. */
    protected void flush() throws Exception {
        if (rows > 0) {
            int count = rows;
            rows = 0;
            usedBytes = 0;
            long beganNs = nanoTime();
            worker.call(count, answer);
            long endedNs = nanoTime();
            restsUntilNs = endedNs + Math.min(MAX_REST_NS, REST * (endedNs - beganNs));
        }
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        flush();
        super.prepareSnapshotPreBarrier(checkpointId);
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        flush();
        super.processWatermark(mark);
    }

    @Override
    public void finish() throws Exception {
        flush();
        super.finish();
    }

    @Override
    public void close() throws Exception {
        try (ProcessPythonEnvironmentManager closed = python;
                Worker ended = worker) {
            super.close();
        }
    }

    /** A failure that the worker is to blame for. */
    protected final WorkerException broken(String what) {
        return new WorkerException(name + ": the Python worker broke the protocol: " + what);
    }

    /** Emits records: output (int), length (int), bytes. Checks all three, for they are another process's. */
    private final class Answer implements Worker.Answer {
        @Override
        public void part(int length) throws Exception {
            if (length < 0 || length > memory.bufferBytes) {
                throw broken("an answer has " + length + " bytes, there is room for " + memory.bufferBytes);
            }
            int position = memory.answers;
            int end = position + length;
            while (position < end) {
                int left = end - position - RECORD_HEADER;
                int size = left < 0 ? -1 : memory.bytes.getInt(position + Integer.BYTES);
                if (size < 0 || size > left) {
                    throw broken("a record has " + size + " bytes, " + left + " are left");
                }
                byte[] bytes = new byte[size];
                memory.bytes.get(position + RECORD_HEADER, bytes);
                emit(memory.bytes.getInt(position), bytes);
                position += RECORD_HEADER + size;
            }
        }

        @Override
        public void record(ByteBuffer record) throws Exception {
            if (record.remaining() < Integer.BYTES) {
                throw broken("a large record has " + record.remaining() + " bytes");
            }
            int to = record.getInt();
            byte[] bytes = new byte[record.remaining()];
            record.get(bytes);
            emit(to, bytes);
        }

        private void emit(int to, byte[] bytes) throws WorkerException {
            if (to < 0 || to > tags.length) {
                throw broken("a record is for output " + to + " of " + (tags.length + 1));
            }
            emitted.replace(bytes);
            if (to == 0) {
                output.collect(emitted);
            } else {
                output.collect(tags[to - 1], emitted);
            }
        }
    }
}
