package dev.lavant.client;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.HashSet;
import java.util.Set;

/**
 * Proxy that cuts connections. Each is cut after so many bytes of the server's answers, a later one after half as many more,
 * so that in the end a frame comes through.
 */
final class TestProxy implements AutoCloseable {
    private final InetSocketAddress server;
    private final ServerSocket listener;
    private final Set<Socket> open = new HashSet<>();
    private long after;
    private int accepted;
    private volatile boolean isFrozen;

    /** Create one that cuts after a number of bytes; 0: never. */
    TestProxy(String target, long after) {
        int colon = target.lastIndexOf(':');
        this.server = new InetSocketAddress(target.substring(0, colon), Integer.parseInt(target.substring(colon + 1)));
        this.after = after;
        try {
            listener = new ServerSocket(0, 100, InetAddress.getLoopbackAddress());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        start(this::accept);
    }

    String target() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    /** Return the number of connections so far. */
    synchronized int accepted() {
        return accepted;
    }

    /** Let connections swallow everything, or no more. */
    void freeze(boolean isFrozen) {
        this.isFrozen = isFrozen;
    }

    /** Close the open connections. */
    synchronized void cut() {
        open.forEach(TestProxy::close);
        open.clear();
    }

    private void accept() throws IOException {
        while (true) {
            Socket near = listener.accept();
            Socket far = new Socket();
            try {
                far.connect(server);
            } catch (IOException refused) {
                close(near);
                continue;
            }
            synchronized (this) {
                accepted++;
                open.add(near);
                open.add(far);
                long limit = after == 0 ? Long.MAX_VALUE : after;
                after += after / 2;
                start(() -> copy(near, far, Long.MAX_VALUE));
                start(() -> copy(far, near, limit));
            }
        }
    }

    private void copy(Socket from, Socket to, long limit) throws IOException {
        byte[] buffer = new byte[16 << 10];
        try (from;
                to) {
            InputStream input = from.getInputStream();
            OutputStream output = to.getOutputStream();
            for (long left = limit; left > 0; ) {
                int count = input.read(buffer, 0, (int) Math.min(buffer.length, left));
                if (count < 0) {
                    return;
                }
                left -= count;
                if (!isFrozen) {
                    output.write(buffer, 0, count);
                }
            }
        }
    }

    private interface Work {
        void run() throws IOException;
    }

    private static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException closed) {
                // Connections that end are what this is for.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    private static void close(Socket socket) {
        try {
            socket.close();
        } catch (IOException closed) {
            // The other side was faster.
        }
    }

    @Override
    public void close() {
        try {
            listener.close();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        cut();
    }
}
