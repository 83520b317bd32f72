package dev.lavant.client;

import io.grpc.Metadata;
import java.util.List;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/** Credential of each call: none, a fixed key, or the result of a function. */
final class Credential {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final Pattern PRINTABLE = Pattern.compile("[!-~]+");
    private static final Pattern LOOPBACK = Pattern.compile("(.*/)?(localhost|127(\\.\\d+){3}|\\[::1]|::1)(:\\d+)?");

    private final String key;
    private final Supplier<String> token;

    Credential(String key, Supplier<String> token, boolean isPrivate, List<String> targets) {
        if (key != null && token != null) {
            throw new IllegalArgumentException("a call has one credential: set apiKey or token");
        }
        if (key != null && !PRINTABLE.matcher(key).matches()) {
            throw new IllegalArgumentException("apiKey is not printable ASCII text without spaces");
        }
        for (String target : targets) {
            if ((key != null || token != null)
                    && !isPrivate
                    && !LOOPBACK.matcher(target).matches()) {
                throw new IllegalArgumentException(
                        "the credential would be sent to %s in plain text: set tls, or insecure".formatted(target));
            }
        }
        this.key = key;
        this.token = token;
    }

    /** Return whether another credential may be obtained after the server has refused one. */
    boolean canRenew() {
        return token != null;
    }

    /** Return the headers of a call. An error has no text of the token's source, which may hold secrets. */
    Metadata headers() {
        Metadata headers = new Metadata();
        String secret = token == null ? key : obtain();
        if (secret != null) {
            headers.put(AUTHORIZATION, "Bearer " + secret);
        }
        return headers;
    }

    private String obtain() {
        String obtained;
        try {
            obtained = token.get();
        } catch (RuntimeException failed) {
            throw CallException.cut("token failed with a " + failed.getClass().getName());
        }
        if (obtained == null || !PRINTABLE.matcher(obtained).matches()) {
            throw CallException.cut("token returned no printable ASCII text without spaces");
        }
        return obtained;
    }
}
