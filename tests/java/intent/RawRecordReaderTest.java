package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import org.apache.flink.api.common.functions.util.ListCollector;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class RawRecordReaderTest {
    private static final long TIME_MS = 0x0102030405060708L;
    private static final long OFFSET = 0x1112131415161718L;
    private static final int PARTITION = 0x21222324;

    @ParameterizedTest(name = "key {0}, value {1}")
    @CsvSource(
            nullValues = "null",
            value = {
                "k,    value, 01000000 05000000 6b 76616c7565",
                "null, value, ffffffff 05000000 76616c7565",
                "k,    null,  01000000 ffffffff 6b",
                "null, null,  ffffffff ffffffff",
                "'',   '',    00000000 00000000",
            })
    void aRecordIsItsTimeOffsetPartitionKeyAndValue(String key, String value, String end) {
        List<byte[]> read = new ArrayList<>();
        new RawRecordReader().deserialize(record(bytes(key), bytes(value)), new ListCollector<>(read));
        assertEquals(1, read.size());
        assertEquals(
                "0807060504030201 1817161514131211 24232221 ".concat(end).replace(" ", ""),
                HexFormat.of().formatHex(read.get(0)));
    }

    @Test
    void recordsAreBytesToFlink() {
        assertEquals(
                PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, new RawRecordReader().getProducedType());
    }

    private static ConsumerRecord<byte[], byte[]> record(byte[] key, byte[] value) {
        return new ConsumerRecord<>(
                "clicks", PARTITION, OFFSET, TIME_MS, TimestampType.CREATE_TIME, 0, 0, key, value, new RecordHeaders(),
                Optional.empty());
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes();
    }
}
