package dev.lavant.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** Which connection a call goes over. */
final class ConnectionPoolTest {
    private final List<Channel> channels = new ArrayList<>();
    private long nanoTime;
    private final ConnectionPool pool = new ConnectionPool(this::dial, 2, () -> nanoTime);

    private Connection dial() {
        channels.add(new Channel());
        return new Connection(channels.get(channels.size() - 1));
    }

    @Test
    void forLongCall_fullConnection_opensAnother() {
        Connection first = pool.forLongCall();
        assertSame(first, pool.forLongCall());
        Connection second = pool.forLongCall();
        assertNotSame(first, second);
        assertNotSame(first, pool.forShortCall());
        pool.release(first);
        assertSame(first, pool.forLongCall());
    }

    @Test
    void forCall_connectionThatCouldNotConnect_isReplaced() {
        Connection shortCall = pool.forShortCall();
        Connection longCall = pool.forLongCall();
        channels.forEach(channel -> channel.state = ConnectivityState.TRANSIENT_FAILURE);
        assertNotSame(longCall, pool.forLongCall());
        assertNotSame(shortCall, pool.forShortCall());
        assertEquals(0, channels.stream().filter(Channel::isShutdown).count());
        pool.release(shortCall);
        pool.release(longCall);
        assertEquals(2, channels.stream().filter(Channel::isShutdown).count());
    }

    @Test
    void forCall_lostAddress_isConnectedToAgainFromTimeToTime() {
        for (int call = 0; call < 10; call++) {
            pool.forShortCall();
            nanoTime += Duration.ofSeconds(1).toNanos();
        }
        assertEquals(3, channels.get(0).reconnects);
    }

    @Test
    void close_openCalls_closesAllConnections() {
        pool.forShortCall();
        pool.retire(pool.forLongCall());
        pool.forLongCall();
        pool.close();
        assertEquals(3, channels.stream().filter(Channel::isShutdown).count());
        assertThrows(ClosedException.class, pool::forShortCall);
        assertThrows(ClosedException.class, pool::forLongCall);
    }

    /** Channel that connects to nothing. */
    private static final class Channel extends ManagedChannel {
        private ConnectivityState state = ConnectivityState.IDLE;
        private int reconnects;
        private boolean isShutdown;

        @Override
        public ConnectivityState getState(boolean requestConnection) {
            return state;
        }

        @Override
        public void resetConnectBackoff() {
            reconnects++;
        }

        @Override
        public ManagedChannel shutdownNow() {
            isShutdown = true;
            return this;
        }

        @Override
        public ManagedChannel shutdown() {
            return shutdownNow();
        }

        @Override
        public boolean isShutdown() {
            return isShutdown;
        }

        @Override
        public boolean isTerminated() {
            return isShutdown;
        }

        @Override
        public boolean awaitTermination(long timeout, TimeUnit unit) {
            return isShutdown;
        }

        @Override
        public String authority() {
            return "";
        }

        @Override
        public <Q, R> ClientCall<Q, R> newCall(MethodDescriptor<Q, R> method, CallOptions options) {
            throw new UnsupportedOperationException();
        }
    }
}
