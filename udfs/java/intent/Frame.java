package intent;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.java.functions.KeySelector;

/**
 * A key and a value in one array of bytes, as they travel from a worker to the next operator or to a sink: the key's
 * length (int, little endian, -1 without a key), the value, the key.
 */
public final class Frame {
    private static final int HEADER = Integer.BYTES;

    private Frame() {}

    /** The key; null without one. Throws IllegalArgumentException for an array that is no frame. */
    public static byte[] key(byte[] frame) {
        int length = keyLength(frame);
        return length < 0 ? null : Arrays.copyOfRange(frame, frame.length - length, frame.length);
    }

    /** The value. Throws IllegalArgumentException for an array that is no frame. */
    public static byte[] value(byte[] frame) {
        return Arrays.copyOfRange(frame, HEADER, frame.length - Math.max(keyLength(frame), 0));
    }

    private static int keyLength(byte[] frame) {
        int length = frame.length < HEADER ? -2 : ByteBuffer.wrap(frame).order(ByteOrder.LITTLE_ENDIAN).getInt();
        if (length < -1 || length > frame.length - HEADER) {
            throw new IllegalArgumentException("not a frame: a key of " + length + " in " + frame.length + " bytes");
        }
        return length;
    }

    /** Partitions frames by their keys, as text. */
    public static final class Key implements KeySelector<byte[], String> {
        private static final long serialVersionUID = 1;

        @Override
        public String getKey(byte[] frame) {
            int length = keyLength(frame);
            if (length < 0) {
                throw new IllegalArgumentException("a frame without a key cannot be partitioned by it");
            }
            return new String(frame, frame.length - length, length, StandardCharsets.UTF_8);
        }
    }
}
