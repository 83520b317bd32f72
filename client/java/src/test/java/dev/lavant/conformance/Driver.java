package dev.lavant.conformance;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.lavant.client.CallException;
import dev.lavant.client.Client;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.StreamSupport;

/**
 * Driver of this client for the suite in tests/conformance, whose README defines the commands: JSON lines on the standard
 * input, what happens as JSON lines on the standard output.
 */
public final class Driver {
    /** Command that begins an operation: it carries it out, and returns the fields of its end. */
    interface Handler {
        JsonObject handle(Client client, Operation operation, JsonObject command) throws Exception;
    }

    private static final Map<String, Handler> HANDLERS = Map.ofEntries(
            Map.entry("read", Reading::read),
            Map.entry("list_events", Reading::listEvents),
            Map.entry("text", Reading::text),
            Map.entry("result", Reading::result),
            Map.entry("publish", Publishing::publish),
            Map.entry("create_run", RunCalls::create),
            Map.entry("get_run", RunCalls::get),
            Map.entry("cancel_run", RunCalls::cancel),
            Map.entry("wait_run", RunCalls::waitFor),
            Map.entry("list_runs", RunCalls::list),
            Map.entry("watch_runs", RunCalls::watch),
            Map.entry("score", RunCalls::score),
            Map.entry("read_fast", Speed::read),
            Map.entry("publish_fast", Speed::publish));

    private final PrintStream output = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final Map<Integer, Operation> operations = new HashMap<>();
    private Client client;

    private Driver() {}

    /**
     * Run the driver.
     *
     * @param arguments none
     * @throws Exception if it fails
     */
    public static void main(String[] arguments) throws Exception {
        new Driver().run();
    }

    private void run() throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            accept(JsonParser.parseString(line).getAsJsonObject());
        }
        operations.values().forEach(Operation::cancel);
        for (Operation operation : operations.values()) {
            operation.join();
        }
        if (client != null) {
            client.close();
        }
    }

    private void accept(JsonObject command) {
        String name = command.get("do").getAsString();
        if (command.has("of")) {
            operations.get(command.get("of").getAsInt()).accept(name, command);
            return;
        }
        int id = command.get("id").getAsInt();
        if (name.equals("connect")) {
            begin(id, command, (none, operation, fields) -> {
                client = connect(fields);
                return new JsonObject();
            });
            operations.get(id).join();
        } else if (HANDLERS.containsKey(name)) {
            begin(id, command, HANDLERS.get(name));
        } else {
            say(id, Json.fields("unsupported", true));
        }
    }

    private void begin(int id, JsonObject command, Handler handler) {
        Operation operation = new Operation(fields -> say(id, fields));
        operations.put(id, operation);
        operation.start(() -> {
            JsonObject end;
            try {
                end = Json.fields("done", handler.handle(client, operation, command));
            } catch (Exception failed) {
                end = operation.isCancelled()
                        ? Json.fields("done", Json.fields("reason", "CANCELLED"))
                        : Json.fields("error", describe(failed));
            }
            say(id, end);
        });
    }

    private static JsonObject describe(Exception failed) {
        JsonObject error = Json.fields("reason", "", "code", "", "message", String.valueOf(failed.getMessage()));
        if (failed instanceof CallException refused) {
            error.addProperty("reason", refused.reasonName());
            error.addProperty("code", refused.code().name());
        }
        return error;
    }

    private synchronized void say(int id, JsonObject fields) {
        fields.addProperty("id", id);
        output.print(fields + "\n");
        output.flush();
    }

    private static Client connect(JsonObject command) {
        List<String> targets = StreamSupport.stream(
                        command.getAsJsonArray("targets").spliterator(), false)
                .map(target -> target.getAsString())
                .toList();
        Client.Builder builder = Client.builder().targets(targets.toArray(String[]::new));
        builder.timeout(command.has("deadline") ? Json.seconds(command, "deadline") : Duration.ofSeconds(10));
        if (command.has("token_file")) {
            Path path = Path.of(command.get("token_file").getAsString());
            builder.token(() -> {
                try {
                    return Files.readString(path).strip();
                } catch (IOException unreadable) {
                    throw new UncheckedIOException(unreadable);
                }
            });
        }
        if (command.has("ca")) {
            builder.tls(Path.of(command.get("ca").getAsString()));
        }
        return builder.build();
    }
}
