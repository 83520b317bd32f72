package dev.lavant.client;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;

/** One connection to the server, or one to each of several, with the number of calls on it. Its pool guards it. */
final class Connection {
    private final ManagedChannel channel;
    private int calls;
    private boolean isRetired;

    Connection(ManagedChannel channel) {
        this.channel = channel;
    }

    /** Return a call that is not started. Its listener runs on the connection's thread, and must not block. */
    <Request, Response> ClientCall<Request, Response> newCall(MethodDescriptor<Request, Response> method) {
        return channel.newCall(method, CallOptions.DEFAULT);
    }

    /** Return whether no address could be connected to: the library would refuse calls until its own backoff is over. */
    boolean hasFailed() {
        return channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE;
    }

    /** Connect to those of several addresses at once that could not be connected to, without further backoff. */
    void reconnect() {
        channel.resetConnectBackoff();
    }

    int calls() {
        return calls;
    }

    void count(int change) {
        calls += change;
    }

    void retire() {
        isRetired = true;
    }

    /** Return whether no call is left, and none will follow. */
    boolean isDone() {
        return isRetired && calls == 0;
    }

    void close() {
        channel.shutdownNow();
    }
}
