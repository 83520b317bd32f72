package dev.lavant.client;

import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;

/** Items of a list, page by page as they are used. */
final class Pages<Item> implements Iterator<Item> {
    /** One page, and the token of the next one; "" for none. */
    record Page<Item>(List<Item> items, String nextToken) {}

    private final Function<String, Page<Item>> get;
    private Iterator<Item> items = List.<Item>of().iterator();
    private String token;
    private boolean isLast;

    /** Create one that begins with the page of a token. */
    Pages(String token, Function<String, Page<Item>> get) {
        this.token = token;
        this.get = get;
    }

    @Override
    public boolean hasNext() {
        while (!items.hasNext() && !isLast) {
            Page<Item> page = get.apply(token);
            items = page.items.iterator();
            isLast = page.nextToken.isEmpty();
            if (page.nextToken.equals(token) && !isLast) { // no sound server does that, and the list would never end
                throw CallException.unsound("the server returned the same page twice");
            }
            token = page.nextToken;
        }
        return items.hasNext();
    }

    @Override
    public Item next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        return items.next();
    }
}
