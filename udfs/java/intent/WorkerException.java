package intent;

import java.io.IOException;

/** A worker that did not start, failed, ended, took too long or broke the protocol. It fails its task. */
public final class WorkerException extends IOException {
    private static final long serialVersionUID = 1;

    public WorkerException(String message) {
        super(message);
    }

    public WorkerException(String message, Throwable cause) {
        super(message, cause);
    }
}
