package intent;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.SelectableChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A Python process, the memory that it shares with its operator, and the socket over which both ring. */
final class Worker implements AutoCloseable {
    /** Messages, each a header of four ints (type, sequence, number, payload bytes) and a payload. */
    static final int BATCH = 1, ROW = 2, NEXT = 3, READY = 11, DONE = 12, PART = 13, RECORD = 14, METRICS = 15, FAILED = 16;

    private static final Logger LOG = LoggerFactory.getLogger(Worker.class);
    private static final int HEADER = 4 * Integer.BYTES;
    private static final int LAST_LINES = 15;
    /** A longer message is taken for garbage: its memory would be the TaskManager's end. */
    private static final int MAX_PAYLOAD = 64 << 20;
    private static final String A_START = "workers.start_timeout to start";
    private static final String AN_ANSWER = "workers.answer_timeout to answer";
    private static final long POLL_MS = 100;

    /** What the worker answers with, as it comes. */
    interface Answer {
        /** There are so many bytes of records in the memory. */
        void part(int length) throws Exception;

        /** One record that was too large for it. */
        void record(ByteBuffer record) throws Exception;
    }

    private final String name;
    private final WorkerSettings settings;
    private final BiConsumer<SharedMemory, String> newMetrics;
    private final Path directory;
    private final Deque<String> lastLines = new ArrayDeque<>();
    private final ByteBuffer header = ByteBuffer.allocateDirect(HEADER).order(ByteOrder.LITTLE_ENDIAN);
    private SharedMemory memory;
    private Selector selector;
    private Process process;
    private Thread logPump;
    private SocketChannel socket;
    private ByteBuffer payload;
    private int sequence;

    /**
     * Start a worker and wait until it is ready.
     *
     * @param environment of the process; `python` in it is the interpreter
     * @param newMetrics is told of the metrics that the worker declares, a line each
     */
    Worker(
            String name,
            WorkerSettings settings,
            SharedMemory.Slots slots,
            Map<String, String> environment,
            BiConsumer<SharedMemory, String> newMetrics)
            throws IOException {
        this.name = name;
        this.settings = settings;
        this.newMetrics = newMetrics;
        directory = privateDirectory(settings.directory());
        try {
            selector = Selector.open();
            memory = new SharedMemory(directory.resolve("memory"), settings.maxRows(), settings.bufferBytes(), slots);
            Files.write(directory.resolve("handler"), settings.handler());
            try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
                bind(server);
                process = start(environment);
                logPump = pumpLog();
                socket = accept(server);
            }
            socket.configureBlocking(false);
            awaitReady();
        } catch (Throwable failed) {
            close();
            throw failed;
        } finally {
            deleteFiles();
        }
    }

    private void bind(ServerSocketChannel server) throws IOException {
        Path bell = directory.resolve("bell");
        try {
            server.bind(UnixDomainSocketAddress.of(bell));
        } catch (IOException error) {
            throw new WorkerException(
                    "workers.memory_dir: no socket can be made at " + bell + " (" + error.getMessage()
                            + "); name another directory",
                    error);
        }
    }

    SharedMemory memory() {
        return memory;
    }

    /** Ring for the rows of a batch that are in the memory; returns when the answer has come in whole. */
    void call(int rows, Answer answer) throws Exception {
        send(BATCH, rows, null);
        receive(answer);
    }

    /** Send a row that is too large for the memory. */
    void call(byte[] row, Answer answer) throws Exception {
        send(ROW, 1, row);
        receive(answer);
    }

    private void receive(Answer answer) throws Exception {
        long deadline = deadline(settings.answerTimeoutMs());
        while (true) {
            switch (next(deadline, AN_ANSWER)) {
                case METRICS -> declare(text());
                case RECORD -> {
                    answer.record(payload);
                    deadline = deadline(settings.answerTimeoutMs()); // it was not the worker that took so long
                }
                case PART -> {
                    answer.part(number());
                    send(NEXT, 0, null);
                    deadline = deadline(settings.answerTimeoutMs());
                }
                case DONE -> {
                    answer.part(number());
                    return;
                }
                default -> throw broken("sent a message of type " + header.getInt(0));
            }
        }
    }

    private void awaitReady() throws IOException {
        long deadline = deadline(settings.startTimeoutMs());
        while (true) {
            switch (next(deadline, A_START)) {
                case METRICS -> declare(text());
                case READY -> {
                    if (number() != SharedMemory.VERSION) {
                        throw broken("speaks version " + number() + " of the protocol, its operator " + SharedMemory.VERSION
                                + "; JAR and wheel are not of the same release");
                    }
                    return;
                }
                default -> throw broken("sent a message of type " + header.getInt(0) + " before it was ready");
            }
        }
    }

    /** The type of the next message; its payload is in `payload`. */
    private int next(long deadline, String limit) throws IOException {
        header.clear();
        read(header, deadline, limit);
        int type = header.getInt(0);
        int length = header.getInt(12);
        if (header.getInt(4) != sequence || length < 0 || length > MAX_PAYLOAD) {
            throw broken("answered call " + header.getInt(4) + " with " + length + " bytes, the call was " + sequence);
        }
        payload = ByteBuffer.allocate(length).order(ByteOrder.LITTLE_ENDIAN);
        read(payload, deadline, limit);
        payload.flip();
        if (type == FAILED) {
            throw new WorkerException(name + ": the Python worker failed:\n" + text());
        }
        return type;
    }

    private int number() {
        return header.getInt(8);
    }

    private String text() {
        return StandardCharsets.UTF_8.decode(payload).toString();
    }

    private void send(int type, int number, byte[] payload) throws IOException {
        if (type != NEXT) {
            sequence++;
        }
        int length = payload == null ? 0 : payload.length;
        header.clear();
        header.putInt(type).putInt(sequence).putInt(number).putInt(length).flip();
        long deadline = deadline(settings.answerTimeoutMs());
        write(header, deadline);
        if (payload != null) {
            write(ByteBuffer.wrap(payload), deadline);
        }
    }

    private void declare(String lines) throws WorkerException {
        try {
            newMetrics.accept(memory, lines);
        } catch (RuntimeException error) {
            throw broken("declared metrics that are none: " + lines);
        }
    }

    private void read(ByteBuffer into, long deadline, String limit) throws IOException {
        while (into.hasRemaining()) {
            int count = socketRead(into);
            if (count < 0) {
                throw ended();
            }
            if (count == 0) {
                await(socket, SelectionKey.OP_READ, deadline, limit);
            }
        }
    }

    private int socketRead(ByteBuffer into) throws IOException {
        try {
            return socket.read(into);
        } catch (ClosedByInterruptException interrupted) {
            throw interrupted;
        } catch (IOException reset) {
            LOG.debug("{}: {}", name, reset.toString());
            return -1;
        }
    }

    private void write(ByteBuffer from, long deadline) throws IOException {
        while (from.hasRemaining()) {
            int count;
            try {
                count = socket.write(from);
            } catch (ClosedByInterruptException interrupted) {
                throw interrupted;
            } catch (IOException brokenPipe) {
                throw ended();
            }
            if (count == 0) {
                await(socket, SelectionKey.OP_WRITE, deadline, AN_ANSWER);
            }
        }
    }

    /** Wait until the channel is ready, in steps that notice the worker's end. */
    private void await(SelectableChannel channel, int operation, long deadline, String limit) throws IOException {
        SelectionKey key = channel.register(selector, operation);
        long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
        if (left <= 0) {
            throw broken("took longer than " + limit + " and is ended");
        }
        selector.select(Math.min(left, POLL_MS));
        selector.selectedKeys().clear();
        if (Thread.currentThread().isInterrupted()) {
            throw new ClosedByInterruptException();
        }
        if (!key.isValid() || channel instanceof ServerSocketChannel && !process.isAlive()) {
            throw ended();
        }
    }

    private SocketChannel accept(ServerSocketChannel server) throws IOException {
        server.configureBlocking(false);
        long deadline = deadline(settings.startTimeoutMs());
        while (true) {
            SocketChannel accepted = server.accept();
            if (accepted != null) {
                return accepted;
            }
            await(server, SelectionKey.OP_ACCEPT, deadline, A_START);
        }
    }

    private static long deadline(long timeoutMs) {
        return System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeoutMs);
    }

    private WorkerException broken(String what) {
        return new WorkerException(name + ": the Python worker " + process.pid() + " " + what + "." + lastWords());
    }

    /** What to say of a worker that has gone, which may take it a moment. */
    private WorkerException ended() {
        String how = "closed its socket";
        try {
            if (process.waitFor(1, TimeUnit.SECONDS)) {
                how = "ended with exit code " + process.exitValue();
                logPump.join(1000);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        return broken(how);
    }

    private String lastWords() {
        synchronized (lastLines) {
            return lastLines.isEmpty() ? "" : " It last wrote:\n" + String.join("\n", lastLines);
        }
    }

    private Process start(Map<String, String> environment) throws IOException {
        // The name is for whoever looks at the list of processes.
        ProcessBuilder builder =
                new ProcessBuilder(environment.get("python"), "-m", "udfs.workers", directory.toString(), name);
        builder.environment().clear();
        builder.environment().putAll(environment);
        builder.environment().put("PYTHONUNBUFFERED", "1");
        String workingDirectory = environment.get("_PYTHON_WORKING_DIR");
        if (workingDirectory != null) {
            builder.directory(new File(workingDirectory));
        }
        try {
            return builder.redirectErrorStream(true).start();
        } catch (IOException error) {
            throw new WorkerException(name + ": the Python worker did not start: " + error.getMessage(), error);
        }
    }

    /** Hand the worker's log lines, which begin with their level, to Flink's log. */
    private Thread pumpLog() {
        Thread pump = new Thread(() -> {
            try (BufferedReader lines = new BufferedReader(
                    new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    log(line);
                }
            } catch (IOException closed) {
                LOG.debug("{}: {}", name, closed.toString());
            }
        }, "log of " + name);
        pump.setDaemon(true);
        pump.start();
        return pump;
    }

    private void log(String line) {
        synchronized (lastLines) {
            if (lastLines.size() == LAST_LINES) {
                lastLines.removeFirst();
            }
            lastLines.addLast(line);
        }
        if (line.startsWith("ERROR ") || line.startsWith("CRITICAL ")) {
            LOG.error("{}: {}", name, line.substring(line.indexOf(' ') + 1));
        } else if (line.startsWith("WARNING ")) {
            LOG.warn("{}: {}", name, line.substring(8));
        } else {
            LOG.info("{}: {}", name, line.startsWith("INFO ") ? line.substring(5) : line);
        }
    }

    private static Path privateDirectory(String parent) throws IOException {
        try {
            return Files.createTempDirectory(
                    Path.of(parent), "intent-", PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
        } catch (IOException error) {
            throw new WorkerException(
                    "workers.memory_dir: no directory can be made in " + parent + " (" + error + "); name another one", error);
        }
    }

    /** Both sides hold the files open by now: no name of theirs is left, whatever happens. */
    private void deleteFiles() throws IOException {
        for (String file : new String[] {"memory", "handler", "bell"}) {
            Files.deleteIfExists(directory.resolve(file));
        }
        Files.deleteIfExists(directory);
    }

    /** End the process and give its memory back. */
    @Override
    public void close() throws IOException {
        if (process != null) {
            process.destroyForcibly();
            awaitEnd();
        }
        if (socket != null) {
            socket.close();
        }
        if (selector != null) {
            selector.close();
        }
        if (memory != null) {
            memory.close();
        }
    }

    /** Interrupts, of which a task that is cancelled gets several, are passed on when the process is gone. */
    private void awaitEnd() {
        boolean interrupted = Thread.interrupted();
        while (true) {
            try {
                process.waitFor();
                break;
            } catch (InterruptedException again) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
