package dev.lavant.conformance;

import com.google.gson.JsonObject;
import dev.lavant.client.Client;
import dev.lavant.client.EventStream;
import dev.lavant.client.RunProducer;
import dev.lavant.client.StartOptions;
import dev.lavant.v1.CustomEvent;
import dev.lavant.v1.Event;

/** Commands that measure the client: nothing is reported but how long they took. */
final class Speed {
    private static final double NANOS = 1e9;

    private Speed() {}

    static JsonObject read(Client client, Operation operation, JsonObject command) {
        long began = System.nanoTime();
        int count = 0;
        try (EventStream stream = client.runs().read(command.get("run").getAsString())) {
            for (Event ignored : stream) {
                count++;
            }
        }
        JsonObject done = new JsonObject();
        done.addProperty("events", count);
        done.addProperty("seconds", (System.nanoTime() - began) / NANOS);
        return done;
    }

    static JsonObject publish(Client client, Operation operation, JsonObject command) {
        long began = System.nanoTime();
        StartOptions options =
                StartOptions.builder().runId(command.get("run").getAsString()).build();
        try (RunProducer run = client.runs().start("fast", options)) {
            for (int number = 0; number < command.get("count").getAsInt(); number++) {
                run.publish(Event.newBuilder()
                        .setCustom(CustomEvent.newBuilder().setName("note").setValueJson("1"))
                        .build());
            }
            run.finish();
        }
        JsonObject done = new JsonObject();
        done.addProperty("seconds", (System.nanoTime() - began) / NANOS);
        return done;
    }
}
