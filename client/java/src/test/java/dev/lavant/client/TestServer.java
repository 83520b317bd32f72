package dev.lavant.client;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Server of the tree in a process of its own, whose port and store survive it. */
final class TestServer implements AutoCloseable {
    private static final Pattern READY = Pattern.compile("grpc=(\\S+)");
    private static TestServer shared;

    private final Path folder;
    private String target = "127.0.0.1:0";
    private Process process;

    TestServer() {
        try {
            folder = Files.createTempDirectory("lavant-java");
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
        start();
    }

    /** Return a server for all tests that do not need one of their own. It is killed when the tests exit. */
    static synchronized TestServer shared() {
        if (shared == null) {
            shared = new TestServer();
            Runtime.getRuntime().addShutdownHook(new Thread(shared::close));
        }
        return shared;
    }

    String target() {
        return target;
    }

    void restart() {
        kill();
        start();
    }

    private void start() {
        String python = System.getenv().getOrDefault("LAVANT_PYTHON", "../../.venv/bin/python");
        List<String> command =
                List.of(python, "-m", "lavant.server", "--listen", target, "--http", "off", "--admin", "off");
        List<String> whole = new ArrayList<>(command);
        whole.addAll(List.of("--store", "sqlite:///" + folder.resolve("lavant.db")));
        try {
            ProcessBuilder builder = new ProcessBuilder(whole).redirectError(ProcessBuilder.Redirect.INHERIT);
            builder.environment().put("LAVANT_LOG_LEVEL", "error");
            process = builder.start();
            BufferedReader lines =
                    new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                Matcher ready = READY.matcher(line);
                if (ready.find()) {
                    target = ready.group(1);
                    return;
                }
            }
        } catch (IOException failed) {
            throw new IllegalStateException("no server: make .venv/.ready, or set LAVANT_PYTHON", failed);
        }
        throw new IllegalStateException("the server did not start");
    }

    private void kill() {
        process.destroyForcibly();
        try {
            process.waitFor();
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }

    @Override
    public void close() {
        kill();
        try (var files = Files.list(folder)) {
            for (Path file : files.toList()) {
                Files.delete(file);
            }
            Files.delete(folder);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
