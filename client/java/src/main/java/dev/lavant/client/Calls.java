package dev.lavant.client;

import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ThreadFactory;
import java.util.function.Function;

/** Single calls, and what all calls of a client share. All of lavant's calls may be repeated. */
final class Calls {
    /** Time without an answer after which a connection counts as dead. */
    static final Duration UNANSWERED = Duration.ofSeconds(10);

    /** Logger of warnings about connections and about events that are lost. */
    static final System.Logger LOG = System.getLogger("dev.lavant.client");

    final ConnectionPool pool;
    final Credential credential;
    final Closer closer = new Closer();
    final Session.Memory sessions = new Session.Memory();
    final Duration timeout;
    final ThreadFactory threads;

    Calls(ConnectionPool pool, Credential credential, Duration timeout, ThreadFactory threads) {
        this.pool = pool;
        this.credential = credential;
        this.timeout = timeout;
        this.threads = threads;
    }

    /**
     * Make a single call within the client's timeout, and repeat it after cuts. An attempt without an answer in a third of
     * the time is repeated over another connection.
     */
    <Request, Response> Response call(MethodDescriptor<Request, Response> method, Request request) {
        Duration patience = Durations.longer(UNANSWERED, timeout.dividedBy(3));
        return repeat(timeout, left -> attempt(pool.forShortCall(), method, request, patience, left));
    }

    /** Make a single call once, within patience and the time that is left. */
    <Request, Response> Response attempt(
            Connection connection,
            MethodDescriptor<Request, Response> method,
            Request request,
            Duration patience,
            Duration left) {
        try (var call = new FrameCall<>(pool, connection, closer, method, credential, request)) {
            Response response = left.compareTo(patience) < 0 ? call.nextInTime(left) : call.next(patience);
            if (response == null
                    || call.nextInTime(patience) != null) { // the status, which may be an error, comes last
                throw CallException.cut("the call did not have one response");
            }
            return response;
        }
    }

    /** Make attempts, each with the time that is left, until one succeeds, fails for good, or the time is over. */
    <Response> Response repeat(Duration limit, Function<Duration, Response> attempt) {
        long end = System.nanoTime() + limit.toNanos();
        Retries retries = new Retries();
        CallException last = null;
        while (true) {
            try {
                return attempt.apply(Duration.ofNanos(end - System.nanoTime()));
            } catch (CallException failed) {
                // That the time is over says less than why an earlier attempt failed.
                if (last == null || failed.code() != Status.Code.DEADLINE_EXCEEDED) {
                    last = failed;
                }
                Optional<Duration> delay = retries.after(failed, credential, Retries::isTransient);
                if (delay.isEmpty() || delay.get().toNanos() >= end - System.nanoTime()) {
                    throw last;
                }
                closer.sleep(delay.get());
            }
        }
    }
}
