package dev.lavant.client;

import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/** One incarnation of a consumer, over all of its calls. */
final class Session {
    final String id = Ids.random();
    private long attempt;
    private int calls;
    private boolean isOpened;

    /** Begin a call, and return its attempt. */
    synchronized long next() {
        calls++;
        return ++attempt;
    }

    /** Return whether the session has acquired the consumer's lease before. */
    synchronized boolean isOpened() {
        return isOpened;
    }

    /** Note that the session has acquired the consumer's lease. */
    synchronized void open() {
        isOpened = true;
    }

    /** End a call. */
    synchronized void leave() {
        calls--;
    }

    private synchronized boolean isIdle() {
        return calls == 0;
    }

    /**
     * Last session of each consumer, which its next stream continues. The server lets such a stream in at once; another
     * session is refused until the server has noticed that the first stream was left.
     */
    static final class Memory {
        private static final int REMEMBERED = 1_000;

        private record Key(String run, String consumer) {}

        private final Map<Key, Session> latest = new LinkedHashMap<>();

        /**
         * Return the session of a new stream. To take over, it must be a new one: the server ignores `take_over` of a session
         * that was displaced.
         */
        synchronized Session begin(String run, String consumer, boolean takeOver) {
            Key key = new Key(run, consumer);
            Session session = latest.get(key);
            if (session == null || takeOver || !session.isIdle()) {
                session = new Session();
            }
            latest.remove(key); // the newest come last
            latest.put(key, session);
            Iterator<Session> oldest = latest.values().iterator();
            while (latest.size() > REMEMBERED && oldest.hasNext()) {
                Session one = oldest.next();
                if (one != session && one.isIdle()) {
                    oldest.remove();
                }
            }
            return session;
        }
    }
}
