package intent;

import java.util.Arrays;
import org.apache.flink.table.functions.AggregateFunction;

/**
 * {@code user_history(event, length)}: the newest {@code length} events of a user, end to end, oldest first.
 *
 * <p>An event is a fixed-width record of bytes; udfs/history.py says what is in it. A NULL event changes nothing, and a
 * user without events has a NULL history. One byte array is the whole state, so that an event costs one read and one
 * write of it, and its content may change without touching this class.
 */
public class UserHistory extends AggregateFunction<byte[], UserHistory.Accumulator> {

    /** A user's state. The width is kept to notice state that was written with records of another layout. */
    public static class Accumulator {
        public byte[] records = new byte[0];
        public int width;
    }

    @Override
    public Accumulator createAccumulator() {
        return new Accumulator();
    }

    @Override
    public byte[] getValue(Accumulator history) {
        return history.records.length == 0 ? null : history.records;
    }

    /** Appends the event, in a new array: the one before may still be on its way to the next operator. */
    public void accumulate(Accumulator history, byte[] event, Integer length) {
        if (event == null) {
            return;
        }
        if (length < 1) {
            throw new IllegalArgumentException("user_history: length is " + length + ", must be at least 1");
        }
        if (history.records.length > 0 && history.width != event.length) {
            throw new IllegalStateException(
                    "user_history: an event has " + event.length + " bytes, those in state have " + history.width
                            + "; the state is of another EVENT layout, start without it");
        }
        int stored = history.records.length;
        int kept = Math.min(stored, (length - 1) * event.length);
        byte[] records = Arrays.copyOfRange(history.records, stored - kept, stored + event.length);
        System.arraycopy(event, 0, records, kept, event.length);
        history.records = records;
        history.width = event.length;
    }
}
