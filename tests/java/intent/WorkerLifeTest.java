package intent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** That nothing is left at the end, all tests of workers check. */
class WorkerLifeTest extends WorkerTest {
    @Test
    void noNameOfASharedFileIsThereWhileAWorkerRuns() throws Exception {
        open(handler("Echo"));
        assertEquals(1, workers().size());
        assertEquals(List.of(), filesIn(memory));
    }

    @Test
    void eachOperatorHasAWorkerOfItsOwn() throws Exception {
        Task first = open(handler("Echo"));
        Task second = open(handler("Join")).send("a", "b", "c", "d");
        assertEquals(2, workers().size());
        first.close();
        assertEquals(1, workers().size());
        assertEquals(List.of("a b c d", "e f g h"), second.send("e", "f", "g", "h").take());
    }

    @Test
    void aTaskThatIsCancelledWhileABatchIsOpenJustEnds() throws Exception {
        Task task = open(handler("Echo")).send("a", "b");
        task.close();
        assertEquals(List.of(), task.take());
    }

    @Test
    void anOperatorThatWasNeverOpenedCanBeClosed() throws Exception {
        Task task = task(new BatchOperator(settings(handler("Echo"))));
        task.harness.initializeEmptyState();
        task.close();
    }

    @Test
    void nothingPilesUpInFiftyTasks() throws Exception {
        long before = runTasks(5);
        long after = runTasks(45);
        assertTrue(after < before + 10, before + " open files grew to " + after);
    }

    /** Each is finished or cancelled; answers how many files this process has open afterwards. */
    private long runTasks(int count) throws Exception {
        for (int number = 0; number < count; number++) {
            Task task = open(handler("Echo")).send("a", "b", "c", "d", "e");
            if (number % 2 == 0) {
                task.finish();
            }
            task.close();
            assertNothingIsLeft();
        }
        return filesIn(Path.of("/proc/self/fd")).size();
    }
}
