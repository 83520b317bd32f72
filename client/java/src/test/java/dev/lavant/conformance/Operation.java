package dev.lavant.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.function.Consumer;

/** One command that runs in a thread of its own, and the commands about it. Cancelling it interrupts the thread. */
final class Operation {
    /** Commands about it, other than those that are carried out at once. */
    final BlockingQueue<JsonObject> commands = new LinkedBlockingQueue<>();
    /** One permit for each command {@code next}. */
    final Semaphore next = new Semaphore(0);

    private final Consumer<JsonObject> say;
    private volatile String position = "";
    private volatile boolean isCancelled;
    private Thread thread;

    Operation(Consumer<JsonObject> say) {
        this.say = say;
    }

    void start(Runnable work) {
        thread = new Thread(work);
        thread.start();
    }

    /** Report a line about this operation. */
    void say(Object... namesAndValues) {
        say.accept(Json.fields(namesAndValues));
    }

    /** Report an event that is handled with its line: nobody sees the line with the position before. */
    synchronized void sayHandled(JsonElement event, String position) {
        say("event", event);
        this.position = position;
    }

    private synchronized void sayPosition() {
        say("position", position);
    }

    /** Set what an application would store now. */
    void setPosition(String position) {
        this.position = position;
    }

    boolean isCancelled() {
        return isCancelled;
    }

    /** Carry out a command about this operation. */
    void accept(String name, JsonObject command) {
        switch (name) {
            case "next" -> next.release();
            case "position" -> sayPosition();
            case "cancel" -> cancel();
            default -> commands.add(command);
        }
    }

    void cancel() {
        isCancelled = true;
        thread.interrupt();
    }

    void join() {
        try {
            thread.join();
        } catch (InterruptedException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
