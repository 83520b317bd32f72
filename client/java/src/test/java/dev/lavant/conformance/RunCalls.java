package dev.lavant.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import dev.lavant.client.Client;
import dev.lavant.client.RunChange;
import dev.lavant.client.RunWatch;
import dev.lavant.v1.CreateRunRequest;
import dev.lavant.v1.Evaluator;
import dev.lavant.v1.ListRunsRequest;
import dev.lavant.v1.Run;
import dev.lavant.v1.Score;
import dev.lavant.v1.WatchRunsRequest;
import java.time.Duration;

/** Commands about runs. */
final class RunCalls {
    private static final Duration LONG = Duration.ofDays(1);

    private RunCalls() {}

    static JsonObject create(Client client, Operation operation, JsonObject command) {
        CreateRunRequest request = Json.parse(command.get("request"), CreateRunRequest.newBuilder())
                .build();
        return described(client.runs().create(request.getRunId(), request.getSettings()));
    }

    static JsonObject get(Client client, Operation operation, JsonObject command) {
        return described(client.runs().get(Json.text(command, "run")));
    }

    static JsonObject cancel(Client client, Operation operation, JsonObject command) {
        return described(client.runs().cancel(Json.text(command, "run"), Json.text(command, "reason")));
    }

    static JsonObject waitFor(Client client, Operation operation, JsonObject command) {
        Duration timeout = command.has("timeout") ? Json.seconds(command, "timeout") : LONG;
        return described(client.runs().waitFor(Json.text(command, "run"), timeout));
    }

    static JsonObject list(Client client, Operation operation, JsonObject command) {
        JsonArray runs = new JsonArray();
        ListRunsRequest request =
                Json.parse(command.get("request"), ListRunsRequest.newBuilder()).build();
        client.runs().list(request).forEach(run -> runs.add(Json.of(run)));
        return Json.fields("runs", runs);
    }

    static JsonObject watch(Client client, Operation operation, JsonObject command) {
        WatchRunsRequest request = Json.parse(command.get("request"), WatchRunsRequest.newBuilder())
                .build();
        try (RunWatch watch = client.runs().watch(request.getFilter())) {
            for (RunChange change : watch) {
                switch (change.type()) {
                    case CHANGED ->
                        operation.say("changed", Json.of(change.run().orElseThrow()));
                    case LEFT -> operation.say("left", change.runId());
                    case DELETED -> operation.say("deleted", change.runId());
                    case CAUGHT_UP -> operation.say("caught_up", true);
                    case RESET -> {}
                }
            }
        }
        return new JsonObject();
    }

    static JsonObject score(Client client, Operation operation, JsonObject command) {
        Score.Builder score = Score.newBuilder()
                .setName(Json.text(command, "name"))
                .setEvaluator(Evaluator.newBuilder().setName(Json.text(command, "evaluator")));
        JsonPrimitive value = command.getAsJsonPrimitive("value");
        if (value.isBoolean()) {
            score.setPassed(value.getAsBoolean());
        } else if (value.isNumber()) {
            score.setNumber(value.getAsDouble());
        } else {
            score.setLabel(value.getAsString());
        }
        client.scores().record(Json.text(command, "run"), score.build());
        return new JsonObject();
    }

    private static JsonObject described(Run run) {
        return Json.fields("run", Json.of(run));
    }
}
