package dev.lavant.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.function.Supplier;

/**
 * Connections of a client: one for short calls, and as many as it takes for those that stay open, so that short calls never
 * wait for them.
 */
final class ConnectionPool {
    // Of connecting again to addresses of several that were lost, which the library would try ever more rarely.
    private static final long RECONNECT_INTERVAL = Duration.ofSeconds(3).toNanos();

    private final Supplier<Connection> dial;
    private final int limit;
    private final LongSupplier nanoTime;
    private final ReentrantLock lock = new ReentrantLock();
    private final List<Connection> forLong = new ArrayList<>();
    private final Set<Connection> all = new HashSet<>();
    private Connection forShort;
    private long reconnectTime;
    private boolean isClosed;

    ConnectionPool(Supplier<Connection> dial, int limit, LongSupplier nanoTime) {
        this.dial = dial;
        this.limit = limit;
        this.nanoTime = nanoTime;
        this.reconnectTime = nanoTime.getAsLong();
    }

    /** Return the connection of short calls, already counted; release it after the call. */
    Connection forShortCall() {
        lock.lock();
        try {
            refresh();
            if (forShort == null) {
                forShort = open();
            }
            forShort.count(1);
            return forShort;
        } finally {
            lock.unlock();
        }
    }

    /** Return a connection with room for a call that stays open, already counted; release it after the call. */
    Connection forLongCall() {
        lock.lock();
        try {
            refresh();
            for (Connection connection : forLong) {
                if (connection.calls() < limit) {
                    connection.count(1);
                    return connection;
                }
            }
            Connection connection = open();
            forLong.add(connection);
            connection.count(1);
            return connection;
        } finally {
            lock.unlock();
        }
    }

    /** Count the end of a call. */
    void release(Connection connection) {
        lock.lock();
        try {
            connection.count(-1);
            sweep(connection);
        } finally {
            lock.unlock();
        }
    }

    /** Make no more calls over a connection that fell silent: a dead one swallows the next call too. */
    void retire(Connection connection) {
        lock.lock();
        try {
            connection.retire();
            if (forShort == connection) {
                forShort = null;
            }
            forLong.remove(connection);
            sweep(connection);
        } finally {
            lock.unlock();
        }
    }

    void close() {
        lock.lock();
        try {
            isClosed = true;
            all.forEach(Connection::close);
            all.clear();
            forLong.clear();
            forShort = null;
        } finally {
            lock.unlock();
        }
    }

    /** Replace what could not connect, so that the backoff of this client decides, and not the longer one of the library. */
    private void refresh() {
        List<Connection> used = new ArrayList<>(forLong);
        if (forShort != null) {
            used.add(forShort);
        }
        used.stream().filter(Connection::hasFailed).forEach(this::retire);
        long now = nanoTime.getAsLong();
        if (now - reconnectTime >= RECONNECT_INTERVAL) {
            reconnectTime = now;
            all.forEach(Connection::reconnect);
        }
    }

    private Connection open() {
        if (isClosed) {
            throw new ClosedException("client");
        }
        Connection connection = dial.get();
        all.add(connection);
        return connection;
    }

    private void sweep(Connection connection) {
        if (connection.isDone() && all.remove(connection)) {
            connection.close();
        }
    }
}
