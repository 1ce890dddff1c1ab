package intent;

import java.io.Serializable;
import org.apache.flink.configuration.Configuration;

/**
 * What an operator needs to start its worker and to talk to it.
 *
 * @param python the Python options of the job: interpreter, files, archives, requirements
 * @param handler what the worker is to do, as its Python side pickled it
 * @param directory where the shared memory is, for example /dev/shm
 * @param maxRows of a batch
 * @param bufferBytes of the rows of a batch, and as many of its answer
 * @param lingerMs how long a row waits for others at most
 * @param startTimeoutMs how long the worker may take until it is ready
 * @param answerTimeoutMs how long it may take for a batch
 */
public record WorkerSettings(
        Configuration python,
        byte[] handler,
        String directory,
        int maxRows,
        int bufferBytes,
        long lingerMs,
        long startTimeoutMs,
        long answerTimeoutMs)
        implements Serializable {}
