package dev.lavant.client;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ProxiedSocketAddress;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import java.net.SocketAddress;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Opens connections to the targets of a client. */
final class Dialer {
    private static final int MAX_RESPONSE = 8 << 20;
    // A fixed window keeps what a slow reader has not read at the server: gRPC would let it grow.
    private static final int STREAM_WINDOW = 256 << 10;

    private final List<String> targets;
    private final ChannelCredentials credentials;

    /** Create one; throws IllegalArgumentException for targets that cannot work. */
    Dialer(List<String> targets, ChannelCredentials tls) {
        for (String target : targets) {
            if (target.startsWith("http://") || target.startsWith("https://")) {
                throw new IllegalArgumentException("a target is host:port of gRPC, not the URL " + target);
            }
            if (targets.size() > 1) {
                AddressList.check(target);
            }
        }
        this.targets = List.copyOf(targets);
        this.credentials = tls == null ? InsecureChannelCredentials.create() : tls;
    }

    /** Return a connection, which connects with its first call. */
    Connection dial() {
        String target = targets.size() > 1 ? AddressList.target(targets) : targets.get(0);
        NettyChannelBuilder builder = NettyChannelBuilder.forTarget(target, credentials)
                .directExecutor() // listeners do not block
                .maxInboundMessageSize(MAX_RESPONSE)
                .flowControlWindow(STREAM_WINDOW)
                .disableRetry()
                .proxyDetector(Dialer::noProxy)
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, 5_000);
        if (targets.size() > 1 || target.startsWith("dns:")) {
            builder.defaultLoadBalancingPolicy("round_robin");
        }
        return new Connection(builder.build());
    }

    /** Return that there is none: servers are internal services; a proxy of the environment is meant for the web. */
    private static ProxiedSocketAddress noProxy(SocketAddress address) {
        return null;
    }
}
