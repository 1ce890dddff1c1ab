package intent;

import static java.util.stream.Collectors.toSet;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Set;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.junit.jupiter.api.Test;

class WorkerMetricsTest extends WorkerTest {
    @Test
    void metricsThatAWorkerDeclaresAreFlinksFromTheStart() throws Exception {
        Task task = open(handler("Meter"));
        assertEquals(Set.of("intent.rows", "intent.last.batch_size"), workersMetrics(task));
        assertEquals(0, count(task, "rows"));
        assertEquals(0L, value(task, "last.batch_size"));
    }

    @Test
    void theirValuesAreThoseAfterTheLastBatch() throws Exception {
        Task task = open(handler("Meter")).send("a", "b", "a", "a", "b");
        assertEquals(4, count(task, "rows"));
        assertEquals(4L, value(task, "last.batch_size"));
        task.finish();
        assertEquals(5, count(task, "rows"));
        assertEquals(1L, value(task, "last.batch_size"));
    }

    @Test
    void aLabelIsAGroupWithAValueAndMayComeLater() throws Exception {
        Task task = open(handler("Meter")).send("a", "b", "a", "a", "b").setTime(LINGER_MS).send("=");
        assertEquals(3, count(task, "letter.a.rows"));
        assertEquals(2, count(task, "letter.b.rows"));
        task.finish();
        assertEquals(1, count(task, "letter.=.rows"));
    }

    @Test
    void aRowThatIsLargerThanTheBufferIsCounted() throws Exception {
        assertEquals(1, count(open(handler("Meter")).send("x".repeat(BUFFER_BYTES + 1)), "rows"));
    }

    @Test
    void onlyTheWorkerCounts() throws Exception {
        Counter rows = (Counter) open(handler("Meter")).metrics.get("intent.rows");
        assertThrows(UnsupportedOperationException.class, rows::inc);
        assertThrows(UnsupportedOperationException.class, () -> rows.dec(2));
    }

    @Test
    void metricsForWhichThereIsNoRoomAreLeftOut() throws Exception {
        Task task = open(handler("ManyMetrics")).send("a", "b", "c", "d");
        int last = SharedMemory.METRICS - 2;
        assertEquals(last, count(task, "m" + last));
        assertEquals(SharedMemory.METRICS - 1, workersMetrics(task).size());
    }

    @Test
    void theirValuesStayWhenTheOperatorIsClosed() throws Exception {
        Task task = open(handler("Meter")).send("a", "b", "c", "d");
        task.close();
        assertEquals(4, count(task, "rows"));
    }

    private static Set<String> workersMetrics(Task task) {
        return task.metrics.keySet().stream()
                .filter(name -> name.startsWith("intent."))
                .collect(toSet());
    }

    private static long count(Task task, String name) {
        return ((Counter) task.metrics.get("intent." + name)).getCount();
    }

    private static Object value(Task task, String name) {
        return ((Gauge<?>) task.metrics.get("intent." + name)).getValue();
    }
}
