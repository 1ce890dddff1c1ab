package intent;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.util.Collector;

/**
 * A Kafka record as it is, in one array of bytes, little endian: timestamp (long), offset (long), partition (int), the
 * lengths of key and value (int each, -1 for null), key, value.
 */
public final class RawRecordReader implements KafkaRecordDeserializationSchema<byte[]> {
    private static final long serialVersionUID = 1;
    private static final int HEADER = 2 * Long.BYTES + 3 * Integer.BYTES;
    private static final byte[] NOTHING = {};

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<byte[]> out) {
        byte[] key = record.key() == null ? NOTHING : record.key();
        byte[] value = record.value() == null ? NOTHING : record.value();
        out.collect(ByteBuffer.allocate(HEADER + key.length + value.length)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(record.timestamp())
                .putLong(record.offset())
                .putInt(record.partition())
                .putInt(record.key() == null ? -1 : key.length)
                .putInt(record.value() == null ? -1 : value.length)
                .put(key)
                .put(value)
                .array());
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }
}
