package dev.lavant.client;

import dev.lavant.v1.ErrorReason;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * Decision whether and when a call is made again.
 *
 * <p>A call makes progress if it brings something new, or is open for a second. To be open is not enough, because a server
 * may open and end every call at once.
 */
final class Retries {
    private static final long STEADY = Duration.ofSeconds(1).toNanos(); // calls that stay open for so long are few

    // Texts of INTERNAL and UNKNOWN where the transport failed, not the server. The last three are grpc-java's own, of
    // a
    // proxy that ended the call within a message, or before its status.
    private static final List<String> CUT_TEXTS = List.of(
            "RST_STREAM",
            "GOAWAY",
            "Stream removed",
            "Internal error from Core",
            "end-of-stream mid-frame",
            "unexpected EOS");

    private final Delays delays = new Delays();
    private boolean isRenewed;
    private boolean isOpen;
    private long openTime;
    private boolean hasProgressed;

    /** Note that a call begins. */
    void begin() {
        isOpen = false;
        hasProgressed = false;
    }

    /** Note that the call is open. */
    void open() {
        if (!isOpen) {
            isOpen = true;
            openTime = System.nanoTime();
        }
    }

    /** Note that the call has brought something new. */
    void progress() {
        hasProgressed = true;
    }

    /** Forget earlier calls if the one that has ended made progress. Return whether no earlier one is left. */
    boolean settle() {
        if (madeProgress()) {
            delays.reset();
            isRenewed = false;
        }
        return delays.isReset();
    }

    /** Return the delay after a call that the server has ended as planned. */
    Duration planned(Duration asked) {
        if (!madeProgress()) {
            return delays.next(asked);
        }
        settle();
        return asked;
    }

    private boolean madeProgress() {
        return hasProgressed || isOpen && System.nanoTime() - openTime >= STEADY;
    }

    /** Return the delay before the next call; nothing if there is to be none. A refused credential is replaced once. */
    Optional<Duration> after(CallException failed, Credential credential, Predicate<CallException> isRetried) {
        if (failed.reason() == ErrorReason.ERROR_REASON_UNAUTHENTICATED && credential.canRenew() && !isRenewed) {
            isRenewed = true;
            return Optional.of(delays.next(Duration.ZERO));
        }
        return isRetried.test(failed)
                ? Optional.of(delays.next(failed.retryAfter().orElse(Duration.ZERO)))
                : Optional.empty();
    }

    /**
     * Return whether a call failed with its connection, or the server asks to make it again: docs/protocol.md has the tables.
     * Not to be asked about calls that this side has cancelled.
     */
    static boolean isCut(CallException failed) {
        return switch (failed.reason()) {
            case ERROR_REASON_UNAVAILABLE, ERROR_REASON_SLOW_CONSUMER -> true;
            case ERROR_REASON_UNSPECIFIED -> isCutByTransport(failed.code(), failed.getMessage());
            default -> false;
        };
    }

    private static boolean isCutByTransport(Status.Code code, String message) {
        return switch (code) {
            case UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED -> true;
            case INTERNAL, UNKNOWN -> CUT_TEXTS.stream().anyMatch(message::contains);
            default -> false;
        };
    }

    /** Return whether a call or a batch is sent again: also quotas that are free after the delay that the server names. */
    static boolean isTransient(CallException failed) {
        boolean isFreeLater = failed.reason() == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED
                && failed.retryAfter().isPresent();
        return isFreeLater || isCut(failed);
    }
}
