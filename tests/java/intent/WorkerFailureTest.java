package intent;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static org.junit.jupiter.api.Assertions.assertAll;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.ByteBuffer;
import java.nio.channels.ClosedByInterruptException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class WorkerFailureTest extends WorkerTest {
    @ParameterizedTest(name = "that {0}")
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    raises                                  | ValueError: no such row
                    finds its server gone                   | ConnectionRefusedError: nobody listens on port 9
                    exits with code 0                       | ended with exit code 0
                    dies                                    | exit code 3. It last wrote:\\nthese are my last words
                    dies between two parts                  | ended with exit code 3
                    closes its socket                       | closed its socket
                    is ready again                          | sent a message of type 11
                    sends message 99                        | sent a message of type 99
                    announces fewer than no bytes           | -5 bytes
                    announces 2 GiB                         | 2147483647 bytes
                    sends a record without an output        | a large record has 3 bytes
                    answers with fewer than no bytes        | an answer has -1 bytes, there is room for 256
                    answers with more than the buffer       | an answer has 257 bytes, there is room for 256
                    answers with half a header              | a record has -1 bytes, -4 are left
                    declares a metric without a name        | xxxxxxx
                    answers another call                    | answered call 2 with 0 bytes, the call was 1
                    writes a record beyond its answer       | a record has 6 bytes, 5 are left
                    writes a record of fewer than no bytes  | a record has -1 bytes, 0 are left
                    writes to output 7                      | a record is for output 7 of 2
                    writes to output minus 1                | a record is for output -1 of 2
                    """)
    void aWorkerFailsItsTask(String how, String message) throws Exception {
        Task task = open(handler("Misbehaving", how), "log").send("a");
        assertWorkerFails(message.replace("\\n", "\n"), () -> task.setTime(LINGER_MS));
    }

    @ParameterizedTest(name = "that {0}")
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    raises at the start            | ValueError: no such row
                    dies at the start              | ended with exit code 3. It last wrote:\\nthese are my last words
                    speaks version 2 at the start  | speaks version 2 of the protocol, its operator 1; JAR and wheel
                    answers at the start           | sent a message of type 12 before it was ready
                    """)
    void aWorkerThatDoesNotStartFailsItsTask(String how, String message) {
        assertWorkerFails(message.replace("\\n", "\n"), () -> open(handler("Misbehaving", how)));
    }

    @Test
    void aWorkerThatAnswersTwiceFailsTheNextBatch() throws Exception {
        Task task = open(handler("Misbehaving", "answers twice")).send("a").setTime(LINGER_MS).send("b");
        assertWorkerFails("answered call 1 with 0 bytes, the call was 2", task::finish);
        assertEquals(List.of("a"), task.take());
    }

    @Test
    void aWorkerThatTakesTooLongForItsAnswerFailsItsTask() throws Exception {
        answerTimeoutMs = 300;
        Task task = open(handler("Misbehaving", "sleeps")).send("a");
        assertWorkerFails("took longer than workers.answer_timeout to answer and is ended.", task::finish);
    }

    @Test
    void theTimeThatAnOutputTakesIsNotItsWorkers() throws Exception {
        answerTimeoutMs = 2000;
        Map<String, String> environment = new HashMap<>(System.getenv());
        environment.put("python", PYTHON);
        List<Integer> lengths = new ArrayList<>();
        Worker.Answer slow = new Worker.Answer() {
            @Override
            public void part(int length) {}

            @Override
            public void record(ByteBuffer record) throws Exception {
                lengths.add(record.remaining());
                if (lengths.size() == 1) {
                    MILLISECONDS.sleep(2500);
                }
            }
        };
        WorkerSettings settings = settings(handler("Repeat"));
        try (Worker worker = new Worker("w", settings, SharedMemory.Slots.NONE, environment, (memory, names) -> {})) {
            worker.call("5000000".getBytes(), slow);
        }
        assertEquals(3, lengths.size());
    }

    @Test
    void aWorkerThatTakesTooLongForItsStartFailsItsTask() {
        startTimeoutMs = 1000;
        assertWorkerFails(
                "took longer than workers.start_timeout to start and is ended.",
                () -> open(handler("Misbehaving", "sleeps at the start")));
    }

    @Test
    void aWorkerThatDoesNotTakeInALargeRowFailsItsTask() throws Exception {
        answerTimeoutMs = 300;
        Task task = open(handler("Misbehaving", "does not listen at the start"));
        assertWorkerFails("workers.answer_timeout to answer", () -> task.send("x".repeat(10 << 20)));
    }

    @Test
    void aWorkerWithoutItsHandlerFailsItsTask() {
        assertWorkerFails("Can't get attribute 'Missing'", () -> open(handler("Missing")));
        assertWorkerFails("UnpicklingError", () -> open("no pickle".getBytes()));
    }

    @ParameterizedTest(name = "{0}")
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    /bin/false           | ended with exit code 1
                    /no/such/interpreter | /no/such/interpreter
                    """)
    void aPythonThatIsNoneFailsTheTask(String python, String message) {
        assertWorkerFails(message, () -> open(python, memory.toString()));
    }

    @Test
    void aPythonThatNeverConnectsFailsTheTask() throws Exception {
        startTimeoutMs = 1000;
        Path python = temporary.resolve("python");
        Files.writeString(python, "#!/bin/sh\nexec " + PYTHON + " -c 'import time; time.sleep(3600)' \"$@\"\n");
        Files.setPosixFilePermissions(python, PosixFilePermissions.fromString("rwx------"));
        assertWorkerFails("workers.start_timeout to start", () -> open(python.toString(), memory.toString()));
    }

    @Test
    void aWorkerThatWasKilledFailsItsTask() throws Exception {
        Task task = open(handler("Echo")).send("a");
        ProcessHandle.of(workers().get(0)).orElseThrow().destroyForcibly();
        assertWorkerFails("ended with exit code 137", task::finish);
    }

    @ParameterizedTest(name = "that {0}")
    @CsvSource(
            delimiter = '|',
            textBlock =
                    """
                    begins before its slot  | of the 10 bytes of slot 0 it uses -1 to 0
                    ends before it begins   | of the 10 bytes of slot 0 it uses 5 to 4
                    ends behind its slot    | of the 10 bytes of slot 0 it uses 0 to 11
                    """)
    void aWorkerFailsItsTaskBeforeStateIsBroken(String how, String message) throws Exception {
        for (boolean evicts : new boolean[] {true, false}) {
            Task task = task(new KeyedBatchOperator(settings(handler("Misbehaving", how)), 1, new byte[16], new SlotBody(10, new byte[1]), 1000))
                    .open()
                    .send(frame("a", new byte[0]));
            assertWorkerFails(message, () -> {
                if (evicts) {
                    task.send(frame("b", new byte[0]));
                } else {
                    task.checkpoint();
                }
            });
        }
    }

    @Test
    void anInterruptEndsTheWaitForAnAnswerAndTheMemoryIsGivenBack() throws Exception {
        Task task = open(handler("Misbehaving", "sleeps")).send("a");
        Thread testing = Thread.currentThread();
        CompletableFuture.delayedExecutor(300, MILLISECONDS).execute(testing::interrupt);
        assertThrows(ClosedByInterruptException.class, task::finish);
        assertTrue(testing.isInterrupted());
        assertDoesNotThrow(task::close);
    }

    @Test
    void aWorkerEndsWithTheThreadOfItsTask() throws Exception {
        CompletableFuture<List<Long>> started = new CompletableFuture<>();
        Thread thread = new Thread(() -> {
            try {
                open(handler("Echo"));
                started.complete(workers());
            } catch (Throwable failed) {
                started.completeExceptionally(failed);
            }
        });
        thread.start();
        assertEquals(1, started.get().size());
        assertSoon(List.of(), WorkerTest::workers);
    }

    @Test
    void aDirectoryThatIsNotThereIsNamed() {
        WorkerException failure = assertThrows(WorkerException.class, () -> open(PYTHON, "/no/such/place"));
        String message = "workers.memory_dir: no directory can be made in /no/such/place";
        assertTrue(failure.getMessage().startsWith(message), failure.getMessage());
    }

    @Test
    void aDirectoryWhosePathIsTooLongForASocketIsNamed() throws Exception {
        Path deep = Files.createDirectories(memory.resolve("x".repeat(100)));
        WorkerException failure = assertThrows(WorkerException.class, () -> open(PYTHON, deep.toString()));
        assertAll(
                () -> assertTrue(failure.getMessage().contains("workers.memory_dir"), failure.getMessage()),
                () -> assertEquals(List.of(), filesIn(deep)));
        Files.delete(deep);
    }

    @Test
    void aDirectoryWithoutRoomForTheMemoryIsNamedWithWhatIsNeeded() throws Exception {
        assumeTrue(limitFileSize("unlimited") && limitFileSize("1000000"));
        try {
            WorkerSettings settings = settings(handler("Echo"));
            WorkerException failure = assertThrows(
                    WorkerException.class,
                    () -> task(new KeyedBatchOperator(settings, 1024, new byte[16], new SlotBody(2048, new byte[1]), 1)).open());
            assertTrue(failure.getMessage().startsWith(memory + ": no room for the 2"), failure.getMessage());
            assertTrue(failure.getMessage().contains("lower workers.cached_users"), failure.getMessage());
        } finally {
            limitFileSize("unlimited");
        }
    }

    /** For this process; the limit can be lifted again. */
    private static boolean limitFileSize(String bytes) throws Exception {
        return Files.isExecutable(Path.of("/usr/bin/prlimit"))
                && new ProcessBuilder("prlimit", "--pid=" + ProcessHandle.current().pid(), "--fsize=" + bytes + ":")
                                .start()
                                .waitFor()
                        == 0;
    }

    private void open(String python, String memoryDirectory) throws Exception {
        task(new BatchOperator(settings(handler("Echo"), python, memoryDirectory))).open();
    }
}
