package dev.lavant.client;

/** Error of a wait whose time, as the application has set it, is over. */
public final class DeadlineException extends LavantException {
    private static final long serialVersionUID = 1L;

    DeadlineException(String message) {
        super(message);
    }
}
