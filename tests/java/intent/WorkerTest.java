package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import intent.Task.Subtask;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** A test with real workers, of which nothing may be left afterwards. */
@Timeout(120)
abstract class WorkerTest {
    static final String PYTHON = System.getProperty("python");
    static final int MAX_ROWS = 4;
    static final int BUFFER_BYTES = 256;
    static final long LINGER_MS = 10;

    @TempDir
    Path memory;

    @TempDir
    Path temporary;

    long lingerMs = LINGER_MS;

    /** How long a worker may take; tests of what happens then lower it. */
    long startTimeoutMs = 60_000;

    long answerTimeoutMs = 60_000;

    private final List<Task> tasks = new ArrayList<>();

    @AfterEach
    void nothingIsLeft() throws Exception {
        for (Task task : tasks) {
            task.close();
        }
        assertNothingIsLeft();
    }

    void assertNothingIsLeft() throws Exception {
        assertEquals(List.of(), workers());
        assertEquals(List.of(), filesIn(memory));
        assertEquals(
                List.of(),
                filesIn(temporary).stream().filter(file -> file.toString().contains("/python-dist-")).toList());
        assertSoon(List.of(), WorkerTest::logThreads);
    }

    /** An operator in a task, which is closed after the test at the latest. */
    Task task(BatchOperator operator, Subtask subtask, StateBackend backend) throws Exception {
        Task task = new Task(operator, subtask, backend, temporary);
        tasks.add(task);
        return task;
    }

    Task task(BatchOperator operator) throws Exception {
        return task(operator, Subtask.ONLY, new HashMapStateBackend());
    }

    /** An open operator whose worker has this handler. */
    Task open(byte[] handler, String... sideOutputs) throws Exception {
        return task(new BatchOperator(settings(handler), sideOutputs)).open();
    }

    WorkerSettings settings(byte[] handler) {
        return settings(handler, PYTHON, memory.toString());
    }

    WorkerSettings settings(byte[] handler, String python, String memoryDirectory) {
        Configuration options = new Configuration();
        options.setString("python.executable", python);
        return new WorkerSettings(
                options, handler, memoryDirectory, MAX_ROWS, BUFFER_BYTES, lingerMs, startTimeoutMs, answerTimeoutMs);
    }

    /** A handler of handlers.py as Python pickles it; an argument is a string or a whole number. */
    static byte[] handler(String name, Object... arguments) {
        StringBuilder pickle = new StringBuilder("ctests.java.handlers\n" + name + "\n(");
        for (Object argument : arguments) {
            pickle.append(argument instanceof String ? "S'" + argument + "'\n" : "I" + argument + "\n");
        }
        return pickle.append("tR.").toString().getBytes();
    }

    static byte[] frame(String key, byte[] value) {
        return ByteBuffer.allocate(Integer.BYTES + value.length + key.length())
                .order(ByteOrder.LITTLE_ENDIAN)
                .putInt(key.length())
                .put(value)
                .put(key.getBytes())
                .array();
    }

    /** A failure that names the operator and says what happened. */
    static WorkerException assertWorkerFails(String what, Executable action) {
        WorkerException failure = assertThrows(WorkerException.class, action);
        String message = failure.getMessage();
        assertTrue(message.startsWith(Task.OPERATOR + " (1/1): the Python worker "), message);
        assertTrue(message.contains(what), message);
        return failure;
    }

    /** Of what another thread is about to bring about. */
    static <T> void assertSoon(T expected, Supplier<T> found) throws InterruptedException {
        for (int attempt = 0; attempt < 1000 && !expected.equals(found.get()); attempt++) {
            Thread.sleep(10);
        }
        assertEquals(expected, found.get());
    }

    static List<Long> workers() {
        return ProcessHandle.current()
                .children()
                .filter(child -> child.info().commandLine().orElse("").contains("udfs.workers"))
                .map(ProcessHandle::pid)
                .toList();
    }

    static List<String> logThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.startsWith("log of "))
                .toList();
    }

    static List<Path> filesIn(Path directory) throws IOException {
        try (Stream<Path> files = Files.list(directory)) {
            return files.toList();
        }
    }
}
