package intent;

import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.MetricGroup;

/** Metrics of a worker in Flink's metric groups. Their values are in the shared memory, as longs. */
final class WorkerMetrics {
    private final MetricGroup group;
    private int count;

    WorkerMetrics(MetricGroup group) {
        this.group = group;
    }

    /** Register metrics, a line each: kind, name and groups, apart by tabs; a group is NAME or LABEL=VALUE. */
    void register(SharedMemory memory, String lines) {
        for (String line : lines.split("\n")) {
            String[] words = line.split("\t");
            MetricGroup of = group;
            for (int word = 2; word < words.length; word++) {
                String[] label = words[word].split("=", 2);
                of = label.length == 1 ? of.addGroup(label[0]) : of.addGroup(label[0], label[1]);
            }
            int position = count++;
            if (words[0].equals("counter")) {
                of.counter(words[1], new Value(memory, position));
            } else {
                of.gauge(words[1], (Gauge<Long>) () -> memory.metric(position));
            }
        }
    }

    /** A counter that the worker counts. */
    private record Value(SharedMemory memory, int position) implements Counter {
        @Override
        public long getCount() {
            return memory.metric(position);
        }

        @Override
        public void inc() {
            throw new UnsupportedOperationException("the worker counts");
        }

        @Override
        public void inc(long n) {
            inc();
        }

        @Override
        public void dec() {
            inc();
        }

        @Override
        public void dec(long n) {
            inc();
        }
    }
}
