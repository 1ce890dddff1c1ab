package intent;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.HexFormat;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class FrameTest {
    @ParameterizedTest(name = "frame {0}")
    @CsvSource({
        "03000000 7a61 c3a461, 7a61, c3a461", // an umlaut has two bytes
        "01000000 '' 61, '', 61",
        "00000000 7a '', 7a, ''",
        "00000000, '', ''",
    })
    void aFrameHasAKeyAndAValue(String frame, String value, String key) {
        assertArrayEquals(bytes(value), Frame.value(bytes(frame)));
        assertArrayEquals(bytes(key), Frame.key(bytes(frame)));
        assertEquals(new String(bytes(key), UTF_8), new Frame.Key().getKey(bytes(frame)));
    }

    @ParameterizedTest(name = "frame {0}")
    @CsvSource({"ffffffff 7a61, 7a61", "ffffffff, ''"})
    void aFrameWithoutAKeyHasAValueAndCannotBePartitioned(String frame, String value) {
        assertArrayEquals(bytes(value), Frame.value(bytes(frame)));
        assertNull(Frame.key(bytes(frame)));
        assertRefused(
                "a frame without a key cannot be partitioned by it", () -> new Frame.Key().getKey(bytes(frame)));
    }

    @ParameterizedTest(name = "frame {0}")
    @CsvSource({
        "'', -2, 0", "000000, -2, 3", "feffffff 61, -2, 5", "02000000 61, 2, 5", "ffffff7f 61, 2147483647, 5",
        "00000080 61, -2147483648, 5"
    })
    void whatIsNoFrameIsRefused(String frame, int keyLength, int length) {
        String message = "not a frame: a key of " + keyLength + " in " + length + " bytes";
        assertRefused(message, () -> Frame.key(bytes(frame)));
        assertRefused(message, () -> Frame.value(bytes(frame)));
        assertRefused(message, () -> new Frame.Key().getKey(bytes(frame)));
    }

    private static void assertRefused(String message, Executable action) {
        assertEquals(message, assertThrows(IllegalArgumentException.class, action).getMessage());
    }

    @ParameterizedTest(name = "frame {0}")
    @CsvSource({"01000000 7a61 61, 61", "00000000 7a61, ''", "ffffffff 7a61,"})
    void aFrameIsWrittenAsKeyAndValue(String frame, String key) {
        ProducerRecord<byte[], byte[]> written = new FrameWriter("scores").serialize(bytes(frame), null, 5L);
        assertEquals("scores", written.topic());
        assertArrayEquals(key == null ? null : bytes(key), written.key());
        assertArrayEquals(bytes("7a61"), written.value());
        assertNull(written.timestamp());
    }

    private static byte[] bytes(String hexadecimal) {
        return HexFormat.of().parseHex(hexadecimal.replaceAll("[ ']", ""));
    }
}
