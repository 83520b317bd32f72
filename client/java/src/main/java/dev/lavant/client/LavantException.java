package dev.lavant.client;

/**
 * Base of all errors of this client.
 *
 * <ul>
 *   <li>{@link CallException}: a call failed, or a batch was rejected.
 *   <li>{@link RunNotSucceededException}: the run ended in another state than SUCCEEDED.
 *   <li>{@link DeadlineException}: the time that the application has set is over.
 *   <li>{@link InterruptedCallException}: the waiting thread was interrupted.
 *   <li>{@link ClosedException}: the client, stream or producer was closed by this process.
 * </ul>
 */
public abstract sealed class LavantException extends RuntimeException
        permits CallException, RunNotSucceededException, DeadlineException, InterruptedCallException, ClosedException {
    private static final long serialVersionUID = 1L;

    LavantException(String message) {
        super(message);
    }

    LavantException(String message, Throwable cause) {
        super(message, cause);
    }
}
