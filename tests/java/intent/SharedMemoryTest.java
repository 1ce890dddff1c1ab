package intent;

import static org.junit.jupiter.api.Assertions.assertAll;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import intent.SharedMemory.Slots;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SharedMemoryTest {
    @TempDir
    Path directory;

    private Path file;

    @BeforeEach
    void nameTheFile() {
        file = directory.resolve("memory");
    }

    @Test
    void theAreasFollowEachOtherAndFillTheFile() throws Exception {
        try (SharedMemory memory = new SharedMemory(file, 1000, 5000, new Slots(100, 48, 1000))) {
            assertAll(
                    () -> assertTrue(16 * Long.BYTES <= memory.metrics),
                    () -> assertTrue(memory.metrics + 8 * SharedMemory.METRICS <= memory.rowSlots),
                    () -> assertTrue(memory.rowSlots + 4 * 1000 <= memory.rowEnds),
                    () -> assertTrue(memory.rowEnds + 4 * 1000 <= memory.rows),
                    () -> assertTrue(memory.rows + 5000 <= memory.answers),
                    () -> assertTrue(memory.answers + 5000 <= memory.heads),
                    () -> assertTrue(memory.heads + 48 * 100 <= memory.bodies),
                    () -> assertTrue(memory.bodies + 1000 * 100 <= Files.size(file)),
                    () -> assertEquals(Files.size(file), memory.bytes.capacity()));
        }
    }

    @Test
    void onlyItsOwnerMayReadTheFile() throws Exception {
        try (SharedMemory memory = new SharedMemory(file, 1, 1, Slots.NONE)) {
            assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file)));
        }
    }

    @Test
    void theMemoryIsGivenBackThoughTheTaskIsInterrupted() throws Exception {
        SharedMemory memory = new SharedMemory(file, 1, 1, Slots.NONE);
        Thread.currentThread().interrupt();
        try {
            memory.close();
        } finally {
            assertTrue(Thread.interrupted());
        }
        assertEquals(0, Files.size(file));
    }

    @Test
    void noMoreMemoryIsTakenThanCanBeMapped() {
        WorkerException failure =
                assertThrows(WorkerException.class, () -> new SharedMemory(file, 1, 1, new Slots(1 << 20, 16, 2048)));
        assertEquals(
                "a worker's shared memory would be 2164342784 bytes, at most 2 GiB are possible:"
                        + " lower workers.cached_users",
                failure.getMessage());
        assertTrue(Files.notExists(file));
    }
}
