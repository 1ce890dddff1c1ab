package intent;

import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;

/** Writes frames to a Kafka topic, as key and value. */
public final class FrameWriter implements KafkaRecordSerializationSchema<byte[]> {
    private static final long serialVersionUID = 1;

    private final String topic;

    public FrameWriter(String topic) {
        this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(byte[] frame, KafkaSinkContext context, Long timestamp) {
        return new ProducerRecord<>(topic, Frame.key(frame), Frame.value(frame));
    }
}
