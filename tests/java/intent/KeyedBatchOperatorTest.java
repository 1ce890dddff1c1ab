package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

/** With a worker that counts, from 100 on, the rows of each key and keeps the last bytes of their values. */
class KeyedBatchOperatorTest extends WorkerTest {
    private static final int KEPT = 6;
    private static final int BODY_BYTES = 10;
    private static final long TTL_MS = 1000;

    @Test
    void eachKeyHasItsOwnState() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2", "a3", "b4");
        assertEquals(List.of("a 101 1", "b 101 2", "a 102 13", "b 102 24"), answers(task));
    }

    @Test
    void theBodyOfASlotIsUsedOverAndOver() throws Exception {
        Task task = open(1);
        send(task, "a1234", "a5678", "a9", "a0");
        assertEquals(List.of("a 101 1234", "a 102 345678", "a 103 456789", "a 104 567890"), answers(task));
    }

    @Test
    void moreKeysThanSlotsGoThroughState() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2", "c3", "a4", "b5", "c6", "c7", "a8");
        task.finish();
        assertEquals(
                List.of(
                        "a 101 1", "b 101 2", "c 101 3", "a 102 14", "b 102 25", "c 102 36", "c 103 367", "a 103 148"),
                answers(task));
    }

    @Test
    void aBatchGoesOutBeforeASlotOfItIsGivenAway() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2", "a3");
        assertEquals(List.of(), answers(task));
        send(task, "c4");
        assertEquals(List.of("a 101 1", "b 101 2", "a 102 13"), answers(task));
    }

    @Test
    void aSlotThatIsNotInTheOpenBatchIsGivenAwayWithoutWaiting() throws Exception {
        Task task = open(2);
        send(task, "a1");
        task.setTime(LINGER_MS);
        send(task, "b2", "c3");
        assertEquals(List.of("a 101 1"), answers(task));
    }

    @Test
    void aRowThatIsLargerThanTheBufferIsForTheSlotOfItsKey() throws Exception {
        Task task = open(1);
        send(task, "a1", "b" + "x".repeat(BUFFER_BYTES) + "2", "a3", "b4");
        task.finish();
        assertEquals(List.of("a 101 1", "b 101 xxxxx2", "a 102 13", "b 102 xxxx24"), answers(task));
    }

    @Test
    void stateIsCompleteAtACheckpoint() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2", "c3");
        OperatorSubtaskState state = task.checkpoint();
        send(task, "a4", "c5");
        Task restored = open(1, BODY_BYTES, state);
        send(restored, "a6", "b7", "c8");
        restored.finish();
        assertEquals(List.of("a 102 16", "b 102 27", "c 102 38"), answers(restored));
    }

    @Test
    void ofALongerBodyThanASlotHasTheEndIsKept() throws Exception {
        Task task = open(1);
        send(task, "a123456");
        Task restored = open(1, 4, task.checkpoint());
        send(restored, "a");
        restored.finish();
        assertEquals(List.of("a 102 3456"), answers(restored));
    }

    @Test
    void stateOfAnotherLayoutIsRefused() throws Exception {
        Task task = open(1);
        send(task, "a1");
        OperatorSubtaskState state = task.checkpoint();
        for (byte[] head : List.of(head(2, 100), Arrays.copyOf(head(1, 100), 20))) {
            Task restored = task(new KeyedBatchOperator(settings(handler("Nothing")), 1, head, new SlotBody(10, new byte[1]), TTL_MS)).open(state);
            send(restored, "b2");
            String message = assertThrows(IllegalStateException.class, () -> send(restored, "a3")).getMessage();
            assertTrue(message.startsWith("The state of key a has another layout than this release"), message);
        }
    }

    @Test
    void itemsOfAnEarlierLayoutAreCompletedWithTheEndOfANewOne() throws Exception {
        Task task = open(1);
        send(task, "a1", "a2");
        SlotBody body = new SlotBody(BODY_BYTES, "xyz".getBytes(), SlotBody.earlierLayout(9, 16, 5, 5), SlotBody.earlierLayout(1, head(1, 100).length, 2, 1));
        Task restored = task(new KeyedBatchOperator(settings(handler("Counter", KEPT)), 1, head(7, 100), body, TTL_MS))
                .open(task.checkpoint());
        send(restored, "a5");
        OperatorSubtaskState again = restored.checkpoint();
        assertEquals(List.of("a 103 1yz5"), answers(restored));
        send(task(new KeyedBatchOperator(settings(handler("Nothing")), 1, head(7, 100), new SlotBody(10, new byte[1]), TTL_MS)).open(again), "a6");
    }

    @Test
    void theStateOfAKeyThatHasItsSlotIsGoneATtlAfterItsLastRow() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2");
        task.setTime(TTL_MS - 1);
        send(task, "a3");
        task.setTime(TTL_MS);
        send(task, "a4", "b5");
        task.finish();
        assertEquals(List.of("a 101 1", "b 101 2", "a 102 13", "a 103 134", "b 101 5"), answers(task));
    }

    @Test
    void anExpiredKeyIsForgottenAlsoWithinABatch() throws Exception {
        Task task = task(operator(LINGER_MS / 2, 1, BODY_BYTES)).open();
        send(task, "a1");
        task.setTime(LINGER_MS / 2);
        send(task, "a2");
        task.finish();
        assertEquals(List.of("a 101 1", "a 101 2"), answers(task));
    }

    @Test
    void theStateOfAKeyThatLostItsSlotIsGoneATtlAfterItsLastRow() throws Exception {
        Task task = open(1);
        send(task, "a1", "b2");
        task.setTime(TTL_MS - 1);
        send(task, "a3", "b4");
        task.setTime(2 * TTL_MS - 1);
        send(task, "a5");
        task.finish();
        assertEquals(List.of("a 101 1", "b 101 2", "a 102 13", "b 102 24", "a 101 5"), answers(task));
    }

    @Test
    void theTtlDoesNotBeginAnewWhenASlotIsWritten() throws Exception {
        Task task = open(1);
        send(task, "a1");
        task.setTime(TTL_MS - 1);
        OperatorSubtaskState state = task.checkpoint();
        send(task, "b2");
        task.setTime(TTL_MS);
        send(task, "a3");
        task.finish();
        assertEquals(List.of("a 101 1", "b 101 2", "a 101 3"), answers(task));
        Task restored = task(operator(TTL_MS, 1, BODY_BYTES)).setTime(TTL_MS).open(state);
        send(restored, "a4");
        restored.finish();
        assertEquals(List.of("a 101 4"), answers(restored));
    }

    @Test
    void whatHasExpiredInItsSlotIsNotWrittenToState() throws Exception {
        Task task = open(2);
        send(task, "a1", "b2");
        task.setTime(TTL_MS);
        task.checkpoint();
        assertEquals(0, ((KeyedOneInputStreamOperatorTestHarness<?, ?, ?>) task.harness).numKeyedStateEntries());
    }

    @Test
    void aRowWithoutAKeyIsRefused() throws Exception {
        Task task = open(1);
        assertThrows(IllegalArgumentException.class, () -> task.send(new byte[] {-1, -1, -1, -1, 'a'}));
    }

    private Task open(int slots) throws Exception {
        return open(slots, BODY_BYTES, null);
    }

    private Task open(int slots, int bodyBytes, OperatorSubtaskState state) throws Exception {
        return task(operator(TTL_MS, slots, bodyBytes)).open(state);
    }

    private KeyedBatchOperator operator(long ttlMs, int slots, int bodyBytes) {
        return new KeyedBatchOperator(settings(handler("Counter", KEPT)), slots, head(1, 100), new SlotBody(bodyBytes, new byte[1]), ttlMs);
    }

    /** A row is the letter of its key and a value. */
    private static void send(Task task, String... rows) throws Exception {
        for (String row : rows) {
            task.send(frame(row.substring(0, 1), row.substring(1).getBytes()));
        }
    }

    private static List<String> answers(Task task) {
        return task.takeRecords().stream().map(record -> text(record, String::new)).toList();
    }

    /** Of an answer: key, count and what is kept of the values. */
    static String text(byte[] answer, Function<byte[], String> toText) {
        byte[] value = Frame.value(answer);
        int count = ByteBuffer.wrap(value).order(ByteOrder.LITTLE_ENDIAN).getInt();
        return new String(Frame.key(answer)) + " " + count + " "
                + toText.apply(Arrays.copyOfRange(value, Integer.BYTES, value.length));
    }

    static byte[] head(int layout, int count) {
        return ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putInt(8, layout).putInt(12, count).array();
    }
}
