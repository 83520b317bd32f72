package dev.lavant.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Switch that ends an object's calls and sleeps, and those of all objects that belong to it: the client has one, and each of
 * its streams, watches, producers and waiting calls one of its own.
 */
final class Closer {
    private final String what;
    private final Closer parent;
    private final CountDownLatch closed = new CountDownLatch(1);
    private final ReentrantLock lock = new ReentrantLock();
    private final Set<Runnable> actions = new LinkedHashSet<>();
    private final Runnable byParent = this::close;

    /** Create the switch of a client. */
    Closer() {
        this.what = "client";
        this.parent = null;
    }

    /** Create the switch of an object that ends with another one, once it is attached. */
    Closer(Closer parent, String what) {
        this.what = what;
        this.parent = parent;
    }

    /** Let this end with its parent: from here on the parent holds it. Throws ClosedException if one of them has ended. */
    void attach() {
        check();
        parent.add(byParent);
    }

    /** Call an action when this is closed; throws ClosedException if it is. */
    void add(Runnable action) {
        lock.lock();
        try {
            check();
            actions.add(action);
        } finally {
            lock.unlock();
        }
    }

    void remove(Runnable action) {
        lock.lock();
        try {
            actions.remove(action);
        } finally {
            lock.unlock();
        }
    }

    boolean isClosed() {
        return closed.getCount() == 0;
    }

    /** Throw ClosedException if this is closed. */
    void check() {
        if (isClosed()) {
            throw new ClosedException(what);
        }
    }

    /** Wait for a time; throws ClosedException when this is closed before, InterruptedCallException if interrupted. */
    void sleep(Duration delay) {
        try {
            if (closed.await(delay.toNanos(), TimeUnit.NANOSECONDS)) {
                throw new ClosedException(what);
            }
        } catch (InterruptedException interrupted) {
            throw InterruptedCallException.of(interrupted);
        }
    }

    /** Close this, and call its actions, the first time. */
    void close() {
        List<Runnable> called;
        lock.lock();
        try {
            closed.countDown();
            called = new ArrayList<>(actions);
            actions.clear();
        } finally {
            lock.unlock();
        }
        if (parent != null) {
            parent.remove(byParent);
        }
        called.forEach(Runnable::run); // without the lock: an action may take others
    }
}
