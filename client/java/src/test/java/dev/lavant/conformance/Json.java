package dev.lavant.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import java.time.Duration;
import java.util.Locale;

/** Values of JSON lines. */
final class Json {
    private static final Gson GSON = new Gson();

    private Json() {}

    /** Return an object of names and values in turn. */
    static JsonObject fields(Object... namesAndValues) {
        JsonObject object = new JsonObject();
        for (int index = 0; index < namesAndValues.length; index += 2) {
            object.add((String) namesAndValues[index], GSON.toJsonTree(namesAndValues[index + 1]));
        }
        return object;
    }

    /** Return a message as proto3 JSON. */
    static JsonElement of(MessageOrBuilder message) {
        try {
            return JsonParser.parseString(JsonFormat.printer().print(message));
        } catch (InvalidProtocolBufferException impossible) {
            throw new IllegalArgumentException(impossible);
        }
    }

    /** Read proto3 JSON into a message; nothing from null. */
    static <B extends Message.Builder> B parse(JsonElement json, B builder) {
        try {
            if (json != null) {
                JsonFormat.parser().merge(json.toString(), builder);
            }
            return builder;
        } catch (InvalidProtocolBufferException wrong) {
            throw new IllegalArgumentException(wrong);
        }
    }

    static String text(JsonObject command, String name) {
        return command.has(name) && !command.get(name).isJsonNull()
                ? command.get(name).getAsString()
                : "";
    }

    static boolean flag(JsonObject command, String name) {
        return command.has(name) && command.get(name).getAsBoolean();
    }

    static Duration seconds(JsonObject command, String name) {
        return Duration.ofMillis(Math.round(command.get(name).getAsDouble() * 1_000));
    }

    /** Return a value of an enumeration by its name without prefix; the first one without a name. */
    static <E extends Enum<E>> E value(Class<E> type, String prefix, String name) {
        return name.isEmpty() ? type.getEnumConstants()[0] : Enum.valueOf(type, prefix + name.toUpperCase(Locale.ROOT));
    }
}
