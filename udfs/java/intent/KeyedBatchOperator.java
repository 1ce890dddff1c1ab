package intent;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.LinkedHashMap;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * A batch operator whose worker keeps something for each key, in a slot of the shared memory.
 *
 * <p>A slot is a head of fixed size and a body. The head's first two ints say which bytes of the body are in use, the
 * third names the layout of all that follows. State has of each key the time of its last row, the head from its third
 * int on and the used bytes, complete at each checkpoint. Slots are a cache of it: the least recently used one is written
 * to state and given to the next key.
 */
public final class KeyedBatchOperator extends BatchOperator {
    private static final long serialVersionUID = 1;
    private static final int RANGE_BYTES = 2 * Integer.BYTES;
    private static final int TIME_BYTES = Long.BYTES;
    /** How many expired entries each access to state on the heap may sweep out. */
    private static final int SWEPT = 100;
    private static final long NONE = -1;
    private static final Frame.Key KEY = new Frame.Key();

    private final int slotCount;
    private final byte[] newHead;
    private final SlotBody body;
    private final long ttlMs;

    private transient LinkedHashMap<String, Slot> slots;
    private transient ValueState<byte[]> state;
    private transient long batch;

    /**
     * @param newHead what the head of a new key's slot holds
     * @param ttlMs how long after its last row a key's state is gone
     */
    public KeyedBatchOperator(
            WorkerSettings settings, int slotCount, byte[] newHead, SlotBody body, long ttlMs, String... sideOutputs) {
        super(settings, sideOutputs);
        this.slotCount = slotCount;
        this.newHead = newHead;
        this.body = body;
        this.ttlMs = ttlMs;
    }

    /** Where a key is in the shared memory. */
    private static final class Slot {
        private final int index;
        private String key;
        private boolean isDirty;
        private long batch = NONE;
        private long touchedMs;

        private Slot(int index) {
            this.index = index;
        }
    }

    @Override
    public void open() throws Exception {
        slots = new LinkedHashMap<>(slotCount * 4 / 3 + 1, 0.75f, true);
        ValueStateDescriptor<byte[]> descriptor =
                new ValueStateDescriptor<>("slot", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        descriptor.enableTimeToLive(StateTtlConfig.newBuilder(Duration.ofMillis(ttlMs))
                .cleanupIncrementally(SWEPT, false)
                .build());
        state = getRuntimeContext().getState(descriptor);
        super.open();
    }

    @Override
    protected SharedMemory.Slots slots() {
        return new SharedMemory.Slots(slotCount, newHead.length, body.bytes());
    }

    /** The key is set where state is read or written, and not for each row: that costs more than finding its slot. */
    @Override
    @SuppressWarnings("rawtypes")
    public void setKeyContextElement1(StreamRecord element) {}

    @Override
    public void processElement(StreamRecord<byte[]> element) throws Exception {
        byte[] row = element.getValue();
        String key = KEY.getKey(row);
        if (!hasRoom(row)) {
            flush(); // now, so that the slot which follows stays in the batch that the row goes to
        }
        long now = getProcessingTimeService().getCurrentProcessingTime();
        Slot slot = slots.get(key);
        if (slot == null) {
            slot = load(key, now);
        } else if (now - slot.touchedMs >= ttlMs) {
            if (slot.batch == batch) {
                flush();
            }
            fill(slot, null);
        }
        slot.touchedMs = now;
        slot.batch = batch;
        slot.isDirty = true;
        add(row, slot.index);
    }

    /** Give a slot to a key, with what state has of it. */
    private Slot load(String key, long now) throws Exception {
        Slot slot;
        if (slots.size() < slotCount) {
            slot = new Slot(slots.size());
        } else {
            slot = slots.values().iterator().next();
            if (slot.batch == batch) {
                flush();
            }
            if (slot.isDirty) {
                write(slot);
            }
            slots.remove(slot.key);
        }
        setCurrentKey(key);
        slot.key = key;
        byte[] value = state.value(); // its own time to live began when it was written, which may be after the last row
        fill(slot, value == null || now - ByteBuffer.wrap(value).getLong() >= ttlMs ? null : value);
        slots.put(key, slot);
        return slot;
    }

    /** What the third int of a head says, which is where a value has its first. */
    private static int layout(byte[] bytes, int offset) {
        return ByteBuffer.wrap(bytes, offset, Integer.BYTES).order(ByteOrder.LITTLE_ENDIAN).getInt();
    }

    /** A value in today's layout. */
    private byte[] inLayout(byte[] value, String key) {
        int offset = TIME_BYTES + newHead.length - RANGE_BYTES;
        int found = value.length < TIME_BYTES + Integer.BYTES ? 0 : layout(value, TIME_BYTES);
        if (found == layout(newHead, RANGE_BYTES) && value.length >= offset) {
            return value;
        }
        for (SlotBody.Earlier earlier : body.earlier()) {
            int begin = TIME_BYTES + earlier.headBytes() - RANGE_BYTES;
            if (earlier.layout() == found
                    && value.length >= begin
                    && (value.length - begin) % earlier.itemBytes() == 0) {
                return completed(value, begin, offset, earlier);
            }
        }
        throw new IllegalStateException("The state of key " + key + " has another layout than this release with this"
                + " clicks.declaration. If columns or totals were only added after the others,"
                + " state.new_columns=empty goes on from this savepoint or checkpoint, and these begin empty."
                + " Otherwise start the job without it.");
    }

    private byte[] completed(byte[] value, int begin, int offset, SlotBody.Earlier earlier) {
        byte[] newItem = body.newItem();
        int items = (value.length - begin) / earlier.itemBytes();
        byte[] completed = new byte[offset + items * newItem.length];
        System.arraycopy(newHead, RANGE_BYTES, completed, TIME_BYTES, newHead.length - RANGE_BYTES);
        System.arraycopy(value, 0, completed, 0, begin);
        System.arraycopy(newHead, RANGE_BYTES, completed, TIME_BYTES, Integer.BYTES);
        for (int item = 0; item < items; item++) {
            int start = offset + item * newItem.length;
            System.arraycopy(newItem, 0, completed, start, newItem.length);
            System.arraycopy(value, begin + item * earlier.itemBytes(), completed, start, earlier.usedBytes());
        }
        return completed;
    }

    private void fill(Slot slot, byte[] value) {
        int head = memory.heads + newHead.length * slot.index;
        int used = 0;
        memory.bytes.put(head, newHead);
        if (value != null) {
            int kept = newHead.length - RANGE_BYTES;
            value = inLayout(value, slot.key);
            // Of a body from a job with larger slots the end is kept.
            used = Math.min(value.length - TIME_BYTES - kept, body.bytes());
            memory.bytes.put(head + RANGE_BYTES, value, TIME_BYTES, kept);
            memory.bytes.put(memory.bodies + body.bytes() * slot.index, value, value.length - used, used);
        }
        memory.bytes.putInt(head, 0);
        memory.bytes.putInt(head + Integer.BYTES, used);
    }

    /** Write a dirty slot to state. */
    private void write(Slot slot) throws Exception {
        slot.isDirty = false;
        setCurrentKey(slot.key);
        if (getProcessingTimeService().getCurrentProcessingTime() - slot.touchedMs >= ttlMs) {
            state.clear();
            return;
        }
        int head = memory.heads + newHead.length * slot.index;
        int begin = memory.bytes.getInt(head);
        int end = memory.bytes.getInt(head + Integer.BYTES);
        if (begin < 0 || end < begin || end > body.bytes()) {
            throw broken("of the " + body.bytes() + " bytes of slot " + slot.index + " it uses " + begin + " to " + end);
        }
        int kept = newHead.length - RANGE_BYTES;
        byte[] value = new byte[TIME_BYTES + kept + end - begin];
        ByteBuffer.wrap(value).putLong(slot.touchedMs);
        memory.bytes.get(head + RANGE_BYTES, value, TIME_BYTES, kept);
        memory.bytes.get(memory.bodies + body.bytes() * slot.index + begin, value, TIME_BYTES + kept, end - begin);
        state.update(value);
    }

    @Override
    protected void flush() throws Exception {
        batch++;
        super.flush();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        super.prepareSnapshotPreBarrier(checkpointId);
        for (Slot slot : slots.values()) {
            if (slot.isDirty) {
                write(slot);
            }
        }
    }
}
