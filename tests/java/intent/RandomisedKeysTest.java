package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import intent.Task.Subtask;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Random;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.state.rocksdb.EmbeddedRocksDBStateBackend;
import org.apache.flink.streaming.util.AbstractStreamOperatorTestHarness;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Slots are a cache of state: whatever happens, a worker finds of each key what a plain map has of it.
 *
 * <p>What happens: rows of many more keys than there are slots, some of them and some answers larger than the buffer;
 * time, in which batches go out and keys expire; checkpoints; and failures, after each of which another number of
 * subtasks with other numbers of slots goes on from the last checkpoint.
 */
class RandomisedKeysTest extends WorkerTest {
    private static final int STEPS = 3000;
    private static final int KEYS = 80;
    private static final int MAX_PARALLELISM = 8;
    private static final int KEPT = 300;
    private static final int BODY_BYTES = 450;
    private static final long TTL_MS = 1000;
    private static final int FIRST_COUNT = 100;

    /** What is kept of a key. */
    private record Kept(int count, String values, long touchedMs) {}

    private Random random;
    private StateBackend backend;
    private long nowMs;
    private List<Task> tasks;
    private List<Queue<String>> expected;
    private Map<String, Kept> model = new HashMap<>();
    private List<OperatorSubtaskState> checkpoint = List.of();
    private Map<String, Kept> modelAtCheckpoint = Map.of();

    @ParameterizedTest(name = "seed {0}, {1}")
    @CsvSource({"1, heap", "2, heap", "3, rocksdb"})
    void aWorkerFindsOfEachKeyWhatItKeptOfIt(long seed, String stateBackend) throws Exception {
        random = new Random(seed);
        backend = stateBackend.equals("heap") ? new HashMapStateBackend() : new EmbeddedRocksDBStateBackend();
        start();
        for (int step = 0; step < STEPS; step++) {
            int dice = random.nextInt(1000);
            if (dice < 900) {
                send((int) Math.abs(random.nextGaussian() * KEYS / 3) % KEYS, randomLength());
            } else if (dice < 950) {
                setTime(nowMs + random.nextInt(2 * (int) LINGER_MS));
            } else if (dice < 970) {
                setTime(nowMs + random.nextInt((int) TTL_MS));
            } else if (dice < 998) {
                takeCheckpoint();
            } else {
                fail();
                start();
            }
        }
        for (int key = 0; key < KEYS; key++) {
            send(key, 0);
        }
        takeCheckpoint();
    }

    /** Mostly a few bytes, sometimes more than the buffer has. */
    private int randomLength() {
        return random.nextInt(random.nextInt(20) == 0 ? 2 * BUFFER_BYTES : 12);
    }

    private void start() throws Exception {
        int parallelism = 1 + random.nextInt(3);
        tasks = new ArrayList<>();
        expected = new ArrayList<>();
        model = new HashMap<>(modelAtCheckpoint);
        OperatorSubtaskState state =
                AbstractStreamOperatorTestHarness.repackageState(checkpoint.toArray(OperatorSubtaskState[]::new));
        for (int index = 0; index < parallelism; index++) {
            KeyedBatchOperator operator = new KeyedBatchOperator(
                    settings(handler("Counter", KEPT)),
                    1 + random.nextInt(20),
                    KeyedBatchOperatorTest.head(1, FIRST_COUNT),
                    new SlotBody(BODY_BYTES, new byte[1]),
                    TTL_MS);
            Task task = task(operator, new Subtask(index, parallelism, MAX_PARALLELISM), backend);
            tasks.add(task.setTime(nowMs)
                    .open(
                            state == null
                                    ? null
                                    : AbstractStreamOperatorTestHarness.repartitionOperatorState(
                                            state, MAX_PARALLELISM, checkpoint.size(), parallelism, index)));
            expected.add(new ArrayDeque<>());
        }
    }

    private void send(int number, int length) throws Exception {
        String key = "key " + number;
        byte[] value = new byte[length];
        random.nextBytes(value);
        Kept kept = model.get(key);
        if (kept == null || nowMs - kept.touchedMs >= TTL_MS) {
            kept = new Kept(FIRST_COUNT, "", nowMs);
        }
        String values = kept.values + HexFormat.of().formatHex(value);
        kept = new Kept(kept.count + 1, values.substring(Math.max(0, values.length() - 2 * KEPT)), nowMs);
        model.put(key, kept);
        int subtask = KeyGroupRangeAssignment.assignKeyToParallelOperator(key, MAX_PARALLELISM, tasks.size());
        expected.get(subtask).add(key + " " + kept.count + " " + kept.values);
        tasks.get(subtask).send(frame(key, value));
    }

    private void setTime(long timeMs) throws Exception {
        nowMs = timeMs;
        for (Task task : tasks) {
            task.setTime(timeMs);
        }
    }

    private void takeCheckpoint() throws Exception {
        checkpoint = new ArrayList<>();
        for (Task task : tasks) {
            checkpoint.add(task.checkpoint());
        }
        modelAtCheckpoint = new HashMap<>(model);
        compareAnswers();
        for (Queue<String> missing : expected) {
            assertTrue(missing.isEmpty(), () -> "no answers: " + missing);
        }
    }

    private void fail() throws Exception {
        compareAnswers();
        for (Task task : tasks) {
            task.close();
        }
    }

    private void compareAnswers() {
        for (int subtask = 0; subtask < tasks.size(); subtask++) {
            for (byte[] answer : tasks.get(subtask).takeRecords()) {
                String text = KeyedBatchOperatorTest.text(answer, HexFormat.of()::formatHex);
                assertEquals(expected.get(subtask).poll(), text);
            }
        }
    }
}
