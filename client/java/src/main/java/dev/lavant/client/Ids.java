package dev.lavant.client;

import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/** Identifiers that this client chooses. */
final class Ids {
    private Ids() {}

    /** Return an ID that sorts by the time of its making: a UUID of version 7. */
    static String sorted() {
        long random = ThreadLocalRandom.current().nextLong();
        long high = System.currentTimeMillis() << 16 | 0x7000 | random & 0xFFF;
        // The low half is that of a random UUID, whose variant is the same.
        return new UUID(high, UUID.randomUUID().getLeastSignificantBits()).toString();
    }

    /** Return a random ID. */
    static String random() {
        return UUID.randomUUID().toString();
    }
}
