package dev.lavant.client;

import io.grpc.Attributes;
import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.StatusOr;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.UnknownHostException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Executor;

/** Resolver of targets that are a list of addresses, which gRPC has no name for. */
final class AddressList extends NameResolver {
    private static final String SCHEME = "lavant-addresses";

    static {
        NameResolverRegistry.getDefaultRegistry().register(new Provider());
    }

    private final List<String> addresses;
    private final Executor executor; // names are looked up by calls that block
    private volatile Listener2 listener;

    private AddressList(List<String> addresses, Executor executor) {
        this.addresses = addresses;
        this.executor = executor;
    }

    /** Return the target of gRPC that stands for addresses. */
    static String target(List<String> addresses) {
        try {
            return new URI(SCHEME, "", "/" + String.join(",", addresses), null).toString(); // which quotes [::1]
        } catch (URISyntaxException impossible) {
            throw new IllegalArgumentException(impossible);
        }
    }

    /** Throw IllegalArgumentException unless a target is host:port. */
    static void check(String target) {
        String port = target.substring(target.lastIndexOf(':') + 1);
        if (target.contains("/") || target.equals(port) || !port.matches("\\d{1,5}")) {
            throw new IllegalArgumentException("one of several targets is host:port, not " + target);
        }
    }

    @Override
    public String getServiceAuthority() {
        return hostOf(addresses.get(0));
    }

    @Override
    public void start(Listener2 listener) {
        this.listener = listener;
        refresh();
    }

    @Override
    public void refresh() {
        executor.execute(this::resolve);
    }

    @Override
    public void shutdown() {
        // Nothing is held.
    }

    private void resolve() {
        List<EquivalentAddressGroup> found = new ArrayList<>();
        Status failure = Status.UNAVAILABLE;
        for (String address : addresses) {
            int port = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
            try {
                List<SocketAddress> sockets = new ArrayList<>();
                for (InetAddress one : InetAddress.getAllByName(hostOf(address))) {
                    sockets.add(new InetSocketAddress(one, port));
                }
                // A certificate is compared with the name of its own server.
                Attributes name = Attributes.newBuilder()
                        .set(EquivalentAddressGroup.ATTR_AUTHORITY_OVERRIDE, hostOf(address))
                        .build();
                found.add(new EquivalentAddressGroup(sockets, name));
            } catch (UnknownHostException unknown) {
                failure = Status.UNAVAILABLE
                        .withDescription("no address of " + address)
                        .withCause(unknown);
            }
        }
        ResolutionResult.Builder result = ResolutionResult.newBuilder()
                .setAddressesOrError(found.isEmpty() ? StatusOr.fromStatus(failure) : StatusOr.fromValue(found));
        listener.onResult(result.build());
    }

    private static String hostOf(String address) {
        return address.substring(0, address.lastIndexOf(':'));
    }

    private static final class Provider extends NameResolverProvider {
        @Override
        public NameResolver newNameResolver(URI target, Args args) {
            if (!target.getScheme().equals(SCHEME)) {
                return null;
            }
            List<String> addresses = Arrays.asList(target.getPath().substring(1).split(","));
            return new AddressList(addresses, args.getOffloadExecutor());
        }

        @Override
        public String getDefaultScheme() {
            return SCHEME;
        }

        @Override
        protected boolean isAvailable() {
            return true;
        }

        @Override
        protected int priority() {
            return 0; // less than that of DNS: a target without a scheme is a name
        }

        @Override
        public Collection<Class<? extends SocketAddress>> getProducedSocketAddressTypes() {
            return Set.of(InetSocketAddress.class);
        }
    }
}
