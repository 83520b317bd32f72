package dev.lavant.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.lavant.client.Client;
import dev.lavant.client.EventStream;
import dev.lavant.client.ReadOptions;
import dev.lavant.v1.DeltaMode;
import dev.lavant.v1.Event;
import dev.lavant.v1.EventType;
import dev.lavant.v1.ListEventsRequest;
import dev.lavant.v1.ListEventsResponse;
import dev.lavant.v1.StartPosition;
import dev.lavant.v1.StopPosition;
import java.util.ArrayList;
import java.util.List;

/** Commands that read events. */
final class Reading {
    private Reading() {}

    static JsonObject read(Client client, Operation operation, JsonObject command) throws InterruptedException {
        operation.setPosition(Json.text(command, "resume_token"));
        try (EventStream stream = client.runs().read(Json.text(command, "run"), options(command))) {
            long fence = 0;
            for (Event event : stream) {
                if (stream.fence() != fence) {
                    fence = stream.fence();
                    operation.say("opened", Json.fields("fence", fence));
                }
                if (!Json.flag(command, "hold")) {
                    operation.sayHandled(Json.of(event), stream.position());
                    continue;
                }
                operation.say("event", Json.of(event));
                operation.next.acquire();
                operation.setPosition(stream.position());
            }
            operation.setPosition(stream.position());
            String reason = stream.endReason().name().replace("STREAM_END_REASON_", "");
            return Json.fields("reason", reason, "resume_token", stream.position());
        }
    }

    private static ReadOptions options(JsonObject command) {
        ReadOptions.Builder options = ReadOptions.builder()
                .consumer(Json.text(command, "consumer"))
                .resumeToken(Json.text(command, "resume_token"))
                .takeOver(Json.flag(command, "take_over"))
                .start(Json.value(StartPosition.class, "START_POSITION_", Json.text(command, "start")))
                .stop(Json.value(StopPosition.class, "STOP_POSITION_", Json.text(command, "stop")))
                .types(types(command))
                .deltas(Json.value(DeltaMode.class, "DELTA_MODE_", Json.text(command, "deltas")))
                .waitForRun(Json.flag(command, "wait_for_run"));
        if (command.has("idle_timeout")) {
            options.idleTimeout(Json.seconds(command, "idle_timeout"));
        }
        if (command.has("heartbeat_interval")) {
            options.heartbeatInterval(Json.seconds(command, "heartbeat_interval"));
        }
        return options.build();
    }

    private static List<EventType> types(JsonObject command) {
        List<EventType> types = new ArrayList<>();
        if (command.has("types")) {
            for (JsonElement name : command.getAsJsonArray("types")) {
                types.add(Json.value(EventType.class, "EVENT_TYPE_", name.getAsString()));
            }
        }
        return types;
    }

    static JsonObject listEvents(Client client, Operation operation, JsonObject command) {
        ListEventsRequest.Builder request = ListEventsRequest.newBuilder()
                .setRunId(Json.text(command, "run"))
                .addAllTypes(types(command));
        if (command.has("page_size")) {
            request.setPageSize(command.get("page_size").getAsInt());
        }
        JsonArray events = new JsonArray();
        String token = "";
        for (ListEventsResponse page : client.runs().eventPages(request.build())) {
            page.getEventsList().stream().map(Json::of).forEach(events::add);
            token = page.getResumeToken();
        }
        return Json.fields("events", events, "resume_token", token);
    }

    static JsonObject text(Client client, Operation operation, JsonObject command) {
        return Json.fields("text", client.runs().read(Json.text(command, "run")).text());
    }

    static JsonObject result(Client client, Operation operation, JsonObject command) {
        String output = client.runs().read(Json.text(command, "run")).result().getOutputJson();
        return Json.fields("json", output.isEmpty() ? JsonNull.INSTANCE : JsonParser.parseString(output));
    }
}
