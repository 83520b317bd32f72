package dev.lavant.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.lavant.client.Client;
import dev.lavant.client.ProducerOptions;
import dev.lavant.client.RunProducer;
import dev.lavant.client.StartOptions;
import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.Event;
import dev.lavant.v1.RunSettings;
import java.time.Duration;
import java.util.concurrent.CancellationException;

/** Commands that publish a run. */
final class Publishing {
    private Publishing() {}

    static JsonObject publish(Client client, Operation operation, JsonObject command) throws InterruptedException {
        try (RunProducer run = producer(client, command)) {
            operation.say("ready", true);
            run.cancelled().thenAccept(reason -> operation.say("cancel_requested", reason));
            while (true) {
                JsonObject next = operation.commands.take();
                switch (Json.text(next, "do")) {
                    case "send" -> {
                        for (JsonElement event : next.getAsJsonArray("events")) {
                            run.publish(Json.parse(event, Event.newBuilder()).build());
                        }
                        operation.say("queued", next.getAsJsonArray("events").size());
                    }
                    case "flush" -> {
                        String durable = Long.toString(run.flush().getLastProducerSequence());
                        operation.say("flushed", durable, "tag", next.get("tag"));
                    }
                    case "finish" -> {
                        BatchReceipt receipt = finish(run, Json.text(next, "state"), Json.text(next, "error_message"));
                        return Json.fields(
                                "last_producer_sequence",
                                Long.toString(receipt.getLastProducerSequence()),
                                "last_sequence",
                                Long.toString(receipt.getLastSequence()));
                    }
                    default -> throw new IllegalArgumentException("no command of a publish: " + next);
                }
            }
        }
    }

    private static BatchReceipt finish(RunProducer run, String state, String message) {
        return switch (state) {
            case "FAILED" -> run.fail(new IllegalStateException(message));
            case "CANCELLED" -> run.fail(new CancellationException(message));
            default -> run.finish();
        };
    }

    private static RunProducer producer(Client client, JsonObject command) {
        ProducerOptions.Builder producer = ProducerOptions.builder().id(Json.text(command, "producer"));
        if (command.has("epoch")) {
            producer.epoch(command.get("epoch").getAsLong());
        }
        String id = Json.text(command, "run");
        if (!command.has("create")) {
            return client.runs().continueRun(id, producer.build());
        }
        RunSettings settings =
                Json.parse(command.get("create"), RunSettings.newBuilder()).build();
        StartOptions.Builder options = StartOptions.builder()
                .runId(id)
                .kind(settings.getKind())
                .labels(settings.getLabelsMap())
                .parentRunId(settings.getParentRunId())
                .conversationId(settings.getConversationId())
                .producer(producer.build());
        if (settings.hasProducerTimeout()) {
            options.producerTimeout(
                    Duration.ofSeconds(settings.getProducerTimeout().getSeconds()));
        }
        return client.runs().start(settings.getName(), options.build());
    }
}
