package dev.lavant.client;

/** Error of a call whose thread was interrupted. The thread's interrupt status is set again. */
public final class InterruptedCallException extends LavantException {
    private static final long serialVersionUID = 1L;

    private InterruptedCallException(InterruptedException cause) {
        super("the thread was interrupted", cause);
    }

    /** Return the error of the current thread, whose interrupt status is set again. */
    static InterruptedCallException of(InterruptedException cause) {
        Thread.currentThread().interrupt();
        return new InterruptedCallException(cause);
    }
}
