package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class BatchOperatorTest extends WorkerTest {
    private static final byte[] ECHO = handler("Echo");
    private static final byte[] JOIN = handler("Join");

    @Test
    void rowsComeOutAsRecordsInTheirOrder() throws Exception {
        Task task = open(ECHO);
        String[] rows = IntStream.range(0, 1003).mapToObj(row -> "row " + row).toArray(String[]::new);
        task.send(rows).finish();
        assertEquals(List.of(rows), task.take());
    }

    @Test
    void recordsGoToTheOutputThatTheWorkerNames() throws Exception {
        Task task = open(ECHO, "dead letters", "log");
        task.send("2 b", "0 c", "1 d", "2 e").finish();
        assertEquals(List.of("0 c"), task.take());
        assertEquals(List.of("1 d"), task.takeFrom("dead letters"));
        assertEquals(List.of("2 b", "2 e"), task.takeFrom("log"));
    }

    @Test
    void aFullBatchGoesOutAtOnce() throws Exception {
        Task task = open(JOIN).send("a", "b", "c");
        assertEquals(List.of(), task.take());
        assertEquals(List.of("a b c d"), task.send("d", "e").take());
    }

    @Test
    void aBatchGoesOutWhenTheNextRowHasNoRoomInIt() throws Exception {
        String large = "x".repeat(BUFFER_BYTES - 1);
        Task task = open(JOIN).send("a", large);
        assertEquals(List.of(), task.take());
        assertEquals(List.of("a " + large), task.send("b").take());
    }

    @Test
    void aBatchGoesOutWhenItsOldestRowHasWaitedForTheLingerTime() throws Exception {
        Task task = open(JOIN).setTime(100).send("a").setTime(100 + LINGER_MS - 1).send("b");
        assertEquals(List.of(), task.take());
        assertEquals(List.of("a b"), task.setTime(100 + LINGER_MS).take());
        assertEquals(List.of("c"), task.send("c").setTime(100 + 2 * LINGER_MS).take());
    }

    @Test
    void noRowWaitsLongerForABatchThatWasFullBefore() throws Exception {
        Task task = open(JOIN).send("a", "b").setTime(LINGER_MS / 2).send("c", "d", "e");
        assertEquals(List.of("a b c d", "e"), task.setTime(LINGER_MS / 2 + LINGER_MS).take());
    }

    /** Without a linger time, and with a clock that is read when it opens, for each row, and around each call. */
    private static final class WithoutLinger extends BatchOperator {
        private static final Queue<Long> CLOCK_MS = new ArrayDeque<>();

        private WithoutLinger(WorkerSettings settings, Long... clockMs) {
            super(settings);
            CLOCK_MS.clear();
            CLOCK_MS.addAll(List.of(clockMs));
        }

        @Override
        long nanoTime() {
            return TimeUnit.MILLISECONDS.toNanos(CLOCK_MS.remove());
        }
    }

    private Task openWithoutLinger(Long... clockMs) throws Exception {
        lingerMs = 0;
        return task(new WithoutLinger(settings(JOIN), clockMs)).open();
    }

    @Test
    void withoutLingerARowGoesOutAtOnceIfTheWorkerHasTime() throws Exception {
        Task task = openWithoutLinger(10L, 10L, 10L, 12L, 20L, 20L, 21L);
        assertEquals(List.of("a"), task.send("a").take());
        assertEquals(List.of("b"), task.send("b").take());
    }

    @Test
    void withoutLingerRowsWaitFourTimesAsLongAsTheBatchBeforeTook() throws Exception {
        Task task = openWithoutLinger(10L, 10L, 10L, 11L, 11L, 14L, 15L, 15L, 16L);
        assertEquals(List.of("a"), task.send("a", "b", "c").take());
        assertEquals(List.of("b c d"), task.send("d").take());
    }

    @Test
    void withoutLingerRowsDoNotWaitForOthersThatDoNotCome() throws Exception {
        Task task = openWithoutLinger(10L, 10L, 10L, 11L, 11L, 15L, 16L).setTime(100);
        assertEquals(List.of("a"), task.send("a", "b").setTime(103).take());
        assertEquals(List.of("b"), task.setTime(104).take());
    }

    @Test
    void withoutLingerRowsWaitAFewMillisecondsAtMost() throws Exception {
        Task task = openWithoutLinger(10L, 10L, 10L, 9000L, 9004L, 9005L, 9005L, 9006L);
        assertEquals(List.of("a"), task.send("a", "b").take());
        assertEquals(List.of("b c"), task.send("c").take());
    }

    @Test
    void aBatchGoesOutBeforeTheBarrierOfACheckpoint() throws Exception {
        Task task = open(JOIN).send("a", "b");
        task.harness.prepareSnapshotPreBarrier(1);
        assertEquals(List.of("a b"), task.take());
    }

    @Test
    void aBatchGoesOutBeforeAWatermark() throws Exception {
        Task task = open(JOIN).send("a", "b");
        task.harness.processWatermark(7);
        assertEquals(List.of("a b", "watermark 7"), task.take());
    }

    @Test
    void aBatchGoesOutAtTheEndOfTheInput() throws Exception {
        Task task = open(JOIN).send("a", "b");
        task.finish();
        assertEquals(List.of("a b"), task.take());
    }

    @Test
    void nothingIsAskedOfTheWorkerWithoutRows() throws Exception {
        Task task = open(handler("Misbehaving", "raises")).setTime(LINGER_MS);
        task.checkpoint();
        task.finish();
        assertEquals(List.of(), task.take());
    }

    @Test
    void rowsMayBeEmpty() throws Exception {
        Task task = open(ECHO).send("", "a", "").send("");
        assertEquals(List.of("", "a", "", ""), task.take());
    }

    @Test
    void aWorkerMayPackItsRecordsIntoOnePiece() throws Exception {
        Task task = open(handler("Pack"), "log").send("a", "1 b", "", "c");
        assertEquals(List.of("a", "", "c"), task.take());
        assertEquals(List.of("1 b"), task.takeFrom("log"));
    }

    @Test
    void aBatchMayHaveNoAnswer() throws Exception {
        assertEquals(List.of(), open(handler("Nothing")).send("a", "b", "c", "d", "e", "f", "g", "h").take());
    }

    @ParameterizedTest(name = "of {0} bytes")
    @ValueSource(ints = {BUFFER_BYTES + 1, 10 << 20})
    void aRowThatIsLargerThanTheBufferKeepsItsPlace(int bytes) throws Exception {
        String large = "x".repeat(bytes);
        Task task = open(JOIN).send("a", large, "b");
        task.finish();
        assertEquals(List.of("a", large, "b"), task.take());
    }

    @Test
    void anAnswerThatIsLargerThanTheBufferComesInParts() throws Exception {
        assertAnswered(100, 100, 100, 248);
        assertAnswered(0, 248, 0, 0);
    }

    @Test
    void recordsThatAreLargerThanTheBufferKeepTheirPlaces() throws Exception {
        assertAnswered(5, 249, 6, 10 << 20);
        assertAnswered(300, 301, 248, 302);
    }

    private void assertAnswered(Integer... lengths) throws Exception {
        Task task = open(handler("Stretch"));
        for (Integer length : lengths) {
            task.send(length.toString());
        }
        assertEquals(
                List.of(lengths), task.takeRecords().stream().map(record -> record.length).toList());
    }

    @Test
    void largeRecordsGoToSideOutputsToo() throws Exception {
        String large = "1" + "x".repeat(1000);
        assertEquals(List.of(large), open(ECHO, "log").send(large).takeFrom("log"));
    }
}
