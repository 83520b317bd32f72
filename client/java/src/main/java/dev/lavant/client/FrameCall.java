package dev.lavant.client;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** One gRPC call with one request, whose responses are taken one at a time. Close it. */
final class FrameCall<Request, Response> extends ClientCall.Listener<Response> implements AutoCloseable {
    private record End(Status status, Metadata trailers) {}

    private final ConnectionPool pool;
    private final Connection connection;
    private final ClientCall<Request, Response> call;
    private final Closer closer;
    private final Runnable cancel;
    // Holds one response at most, and the end: another one is requested when that is taken.
    private final BlockingQueue<Object> arrived = new LinkedBlockingQueue<>();

    /** Start a call over a connection that is counted: closing the call, or the closer, ends it. */
    FrameCall(
            ConnectionPool pool,
            Connection connection,
            Closer closer,
            MethodDescriptor<Request, Response> method,
            Credential credential,
            Request request) {
        this.pool = pool;
        this.connection = connection;
        this.closer = closer;
        this.call = connection.newCall(method);
        this.cancel = () -> call.cancel("the client has ended the call", null);
        try {
            call.start(this, credential.headers());
            call.request(1);
            call.sendMessage(request);
            call.halfClose();
            closer.add(cancel); // last, since a call that was cancelled takes no message
        } catch (RuntimeException failed) {
            close();
            throw failed;
        }
    }

    @Override
    public void onMessage(Response response) {
        arrived.add(response);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
        arrived.add(new End(status, trailers));
    }

    /**
     * Return the next response; null after the last one of a call that succeeded. Without any for so long, the connection
     * counts as dead. Throws CallException if the call failed, ClosedException and InterruptedCallException if this process
     * has ended it.
     */
    Response next(Duration patience) {
        return next(patience, true);
    }

    /** Do what next does, except that silence says nothing about the connection. */
    Response nextInTime(Duration timeout) {
        return next(timeout, false);
    }

    @SuppressWarnings("unchecked")
    private Response next(Duration patience, boolean isSilenceFatal) {
        Object next;
        try {
            next = arrived.poll(patience.toNanos(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException interrupted) {
            throw InterruptedCallException.of(interrupted);
        }
        if (next == null) {
            if (isSilenceFatal) {
                pool.retire(connection);
            }
            throw CallException.silent(patience);
        }
        if (!(next instanceof End end)) {
            call.request(1);
            return (Response) next;
        }
        closer.check();
        if (!end.status.isOk()) {
            throw CallException.of(end.status, end.trailers);
        }
        return null;
    }

    @Override
    public void close() {
        closer.remove(cancel);
        cancel.run(); // no effect on a call that has ended
        pool.release(connection);
    }
}
