package dev.lavant.client;

/** Error of calls on a client, stream or producer that this process has closed. */
public final class ClosedException extends LavantException {
    private static final long serialVersionUID = 1L;

    ClosedException(String what) {
        this(what, null);
    }

    ClosedException(String what, Throwable cause) {
        super("the " + what + " is closed", cause);
    }
}
