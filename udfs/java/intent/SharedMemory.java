package intent;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Locale;

/** The file that an operator and its worker both map: rows, their answers and slots. docs/worker-protocol.md shows it. */
final class SharedMemory implements AutoCloseable {
    static final long MAGIC = 0x31544e45544e49L; // "INTENT1"
    static final int VERSION = 1;
    /** How many metrics a worker may have, a long each. */
    static final int METRICS = 8192;
    private static final int PAGE = 4096;

    /** Slots of users, or whatever the keys are; none for an operator without state. */
    record Slots(int count, int headBytes, int bodyBytes) {
        static final Slots NONE = new Slots(0, 0, 0);
    }

    final int metrics;
    final int rowSlots;
    final int rowEnds;
    final int rows;
    final int answers;
    final int bufferBytes;
    final int heads;
    final int bodies;
    final ByteBuffer bytes;
    private long[] lastMetrics;
    /** Not a channel, which an interrupted thread cannot truncate. */
    private final RandomAccessFile opened;

    /** Raises WorkerException, which says what is needed, where the directory has no room. */
    SharedMemory(Path file, int maxRows, int bufferBytes, Slots slots) throws IOException {
        this.bufferBytes = bufferBytes;
        metrics = PAGE;
        rowSlots = metrics + Long.BYTES * METRICS;
        rowEnds = rowSlots + Integer.BYTES * maxRows;
        rows = toPage(rowEnds + (long) Integer.BYTES * maxRows);
        answers = toPage((long) rows + bufferBytes);
        heads = toPage((long) answers + bufferBytes);
        bodies = toPage(heads + (long) slots.headBytes * slots.count);
        int size = toPage(bodies + (long) slots.bodyBytes * slots.count);
        Files.createFile(file, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
        opened = new RandomAccessFile(file.toFile(), "rw");
        reserve(file, size);
        MappedByteBuffer mapped = opened.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, size);
        bytes = mapped.order(ByteOrder.LITTLE_ENDIAN);
        long[] layout = {
            MAGIC, VERSION, maxRows, METRICS, metrics, rowSlots, rowEnds, rows, answers, bufferBytes,
            slots.count, slots.headBytes, heads, slots.bodyBytes, bodies, size
        };
        for (int field = 0; field < layout.length; field++) {
            bytes.putLong(Long.BYTES * field, layout[field]);
        }
    }

    /** Write the whole file: a page that is missing when it is first touched would end the process (SIGBUS). */
    private void reserve(Path file, int size) throws IOException {
        byte[] zeros = new byte[1 << 20];
        try {
            for (int left = size; left > 0; left -= zeros.length) {
                opened.write(zeros, 0, Math.min(zeros.length, left));
            }
        } catch (IOException error) {
            free();
            String needed = String.format(Locale.ROOT, "%.1f MiB", size / 1048576.0);
            throw new WorkerException(
                    file.getParent().getParent() + ": no room for the " + needed + " of memory that each worker shares"
                            + " with its task (" + error.getMessage() + "). Mount a larger one there, for example"
                            + " --shm-size=2g for a container, lower workers.cached_users, or name another directory in"
                            + " workers.memory_dir",
                    error);
        }
    }

    private static int toPage(long size) throws WorkerException {
        long rounded = (size + PAGE - 1) / PAGE * PAGE;
        if (rounded > Integer.MAX_VALUE) {
            throw new WorkerException("a worker's shared memory would be " + rounded
                    + " bytes, at most 2 GiB are possible: lower workers.cached_users");
        }
        return (int) rounded;
    }

    /** The value of a metric, for Flink's reporters, whose threads may come after the end: then it is the last one. */
    synchronized long metric(int position) {
        return lastMetrics == null ? bytes.getLong(metrics + Long.BYTES * position) : lastMetrics[position];
    }

    /** Give the memory back, although Java keeps the mapping until it collects it; nobody may touch it afterwards. */
    @Override
    public synchronized void close() throws IOException {
        if (lastMetrics == null) {
            long[] last = new long[METRICS];
            bytes.slice(metrics, Long.BYTES * METRICS).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(last);
            lastMetrics = last;
        }
        free();
    }

    private void free() throws IOException {
        opened.setLength(0);
        opened.close();
    }
}
