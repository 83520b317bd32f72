package dev.lavant.client;

import dev.lavant.v1.CancelRunRequest;
import dev.lavant.v1.CreateRunRequest;
import dev.lavant.v1.DeleteRunRequest;
import dev.lavant.v1.Event;
import dev.lavant.v1.EventServiceGrpc;
import dev.lavant.v1.EventType;
import dev.lavant.v1.GetRunRequest;
import dev.lavant.v1.ListEventsRequest;
import dev.lavant.v1.ListEventsResponse;
import dev.lavant.v1.ListRunsRequest;
import dev.lavant.v1.Run;
import dev.lavant.v1.RunFilter;
import dev.lavant.v1.RunServiceGrpc;
import dev.lavant.v1.RunSettings;
import dev.lavant.v1.RunState;
import dev.lavant.v1.StreamEventsRequest;
import dev.lavant.v1.WaitRunRequest;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;

/**
 * Calls about runs, at {@link Client#runs}. While the server cannot be reached, calls are repeated within the client's timeout:
 * repeating them has no second effect. They throw {@link CallException} for what fails.
 */
public final class Runs {
    // Less than the contract allows, so that proxies with limits of a minute do not cut a call.
    private static final Duration LONGEST_WAIT = Duration.ofSeconds(50);
    private static final Duration EARLY = Duration.ofSeconds(1);

    private final Calls calls;

    Runs(Calls calls) {
        this.calls = calls;
    }

    /**
     * Start a run of the agent or evaluation with a name, without waiting: the server creates it with its first event. An error
     * of the server is thrown by later methods of the producer.
     *
     * @param name name of the agent or evaluation
     * @return what publishes the run
     */
    public RunProducer start(String name) {
        return start(name, StartOptions.builder().build());
    }

    /**
     * Start a run with options.
     *
     * @param name name of the agent or evaluation
     * @param options settings of the run and its producer
     * @return what publishes the run
     */
    public RunProducer start(String name, StartOptions options) {
        RunSettings settings = options.settings().toBuilder().setName(name).build();
        String id = options.runId().isEmpty() ? Ids.sorted() : options.runId();
        RunProducer run = new RunProducer(new Publisher(calls, id, settings, options.producer()));
        run.publish(Event.newBuilder().setRunStarted(options.started()).build());
        return run;
    }

    /**
     * Publish to a run that exists, as one that {@link #create} has created, or that another process has started. To continue
     * as the same producer, use its ID with a higher epoch.
     *
     * @param id ID of the run
     * @param options identity of the producer
     * @return what publishes the run
     */
    public RunProducer continueRun(String id, ProducerOptions options) {
        return new RunProducer(new Publisher(calls, id, null, options));
    }

    /**
     * Return the events of a run, from its first to its last.
     *
     * @param id ID of the run
     * @return a stream, which is opened when it is read
     */
    public EventStream read(String id) {
        return read(id, ReadOptions.builder().build());
    }

    /**
     * Return the events of a run.
     *
     * @param id ID of the run
     * @param options settings of the stream
     * @return a stream, which is opened when it is read
     */
    public EventStream read(String id, ReadOptions options) {
        StreamEventsRequest.Builder request = options.request().toBuilder().setRunId(id);
        Session session;
        if (request.getConsumerId().isEmpty()) {
            session = new Session();
            request.setConsumerId("anonymous-" + Ids.random());
        } else {
            session = calls.sessions.begin(id, request.getConsumerId(), request.getTakeOver());
        }
        return new EventStream(calls, session, request.build(), options.position());
    }

    /**
     * Create a run in state QUEUED. A run with the same settings is returned as it is. A producer need not call this:
     * {@link #start} creates the run with its first event.
     *
     * @param id ID of the run; empty: a new one
     * @param settings settings of the run, which never change
     * @return the run
     */
    public Run create(String id, RunSettings settings) {
        var request = CreateRunRequest.newBuilder()
                .setRunId(id.isEmpty() ? Ids.sorted() : id)
                .setSettings(settings)
                .build();
        return calls.call(RunServiceGrpc.getCreateRunMethod(), request).getRun();
    }

    /**
     * Return a run.
     *
     * @param id ID of the run
     * @return the run
     */
    public Run get(String id) {
        var request = GetRunRequest.newBuilder().setRunId(id).build();
        return calls.call(RunServiceGrpc.getGetRunMethod(), request).getRun();
    }

    /**
     * Return the runs that match, the newest first, page by page as they are used.
     *
     * @param filter the default instance matches all
     * @return the runs; each iteration lists them again
     */
    public Iterable<Run> list(RunFilter filter) {
        return list(ListRunsRequest.newBuilder().setFilter(filter).build());
    }

    /**
     * Return the runs that match, with all settings of the request, such as the size of the pages.
     *
     * @param request the request of the first page
     * @return the runs; each iteration lists them again
     */
    public Iterable<Run> list(ListRunsRequest request) {
        return () -> new Pages<>(request.getPageToken(), token -> {
            var page = request.toBuilder().setPageToken(token).build();
            var response = calls.call(RunServiceGrpc.getListRunsMethod(), page);
            return new Pages.Page<>(response.getRunsList(), response.getNextPageToken());
        });
    }

    /**
     * Wait until a run has ended.
     *
     * @param id ID of the run
     * @param timeout how long to wait
     * @return the run
     * @throws DeadlineException if it has not ended in time
     */
    public Run waitFor(String id, Duration timeout) {
        long end = System.nanoTime() + timeout.toNanos();
        Delays early = new Delays();
        while (true) {
            long began = System.nanoTime();
            Duration wait = Durations.shorter(LONGEST_WAIT, Duration.ofNanos(Math.max(0, end - began)));
            var request = WaitRunRequest.newBuilder()
                    .setRunId(id)
                    .setTimeout(Durations.toProto(wait))
                    .build();
            Duration patience = wait.plus(Calls.UNANSWERED);
            Run run = calls.repeat(wait.plus(calls.timeout), left -> {
                        var method = RunServiceGrpc.getWaitRunMethod();
                        return calls.attempt(calls.pool.forLongCall(), method, request, patience, left);
                    })
                    .getRun();
            if (hasEnded(run)) {
                return run;
            }
            long now = System.nanoTime();
            if (now >= end) {
                throw new DeadlineException("run %s has not ended within %s".formatted(id, timeout));
            }
            if (now - began < EARLY.toNanos()) { // a server that drains answers at once
                calls.closer.sleep(Durations.shorter(early.next(Duration.ZERO), Duration.ofNanos(end - now)));
            } else {
                early.reset();
            }
        }
    }

    /**
     * Return the runs that match, and then each change to them.
     *
     * @param filter the default instance matches all
     * @return a watch, which is opened when it is read
     */
    public RunWatch watch(RunFilter filter) {
        return watch(filter, "");
    }

    /**
     * Return the changes to runs that match after a position.
     *
     * @param filter the filter of the earlier watch
     * @param resumeToken {@link RunChange#resumeToken} of a change
     * @return a watch, which is opened when it is read
     */
    public RunWatch watch(RunFilter filter, String resumeToken) {
        return new RunWatch(calls, filter, resumeToken);
    }

    /**
     * Ask the run's producer to stop.
     *
     * @param id ID of the run
     * @param reason for people; may be empty
     * @return the run, which usually has not ended yet
     */
    public Run cancel(String id, String reason) {
        var request =
                CancelRunRequest.newBuilder().setRunId(id).setReason(reason).build();
        return calls.call(RunServiceGrpc.getCancelRunMethod(), request).getRun();
    }

    /**
     * Delete an ended run and its log. A call that is repeated after a cut may find the run already deleted.
     *
     * @param id ID of the run
     */
    public void delete(String id) {
        calls.call(
                RunServiceGrpc.getDeleteRunMethod(),
                DeleteRunRequest.newBuilder().setRunId(id).build());
    }

    /**
     * Return the events that are recorded so far, page by page as they are used, without a lease.
     *
     * @param id ID of the run
     * @param types types of events; none: all
     * @return the events; each iteration lists them again
     */
    public Iterable<Event> events(String id, EventType... types) {
        var request = ListEventsRequest.newBuilder()
                .setRunId(id)
                .addAllTypes(Arrays.asList(types))
                .build();
        return () -> new Pages<>("", token -> {
            ListEventsResponse page = eventPage(request, token);
            return new Pages.Page<>(page.getEventsList(), page.getNextPageToken());
        });
    }

    /**
     * Return the pages of recorded events, with all settings of the request, and with the resume token of each page, after
     * which a stream or a later request continues.
     *
     * @param request the request of the first page
     * @return the pages; each iteration lists them again
     */
    public Iterable<ListEventsResponse> eventPages(ListEventsRequest request) {
        return () -> new Pages<>(request.getPageToken(), token -> {
            ListEventsResponse page = eventPage(request, token);
            return new Pages.Page<>(List.of(page), page.getNextPageToken());
        });
    }

    private ListEventsResponse eventPage(ListEventsRequest request, String token) {
        var page = request.toBuilder().setPageToken(token).build();
        return calls.call(EventServiceGrpc.getListEventsMethod(), page);
    }

    /** Return whether a run is in a terminal state. */
    private static boolean hasEnded(Run run) {
        return run.getStateValue() >= RunState.RUN_STATE_SUCCEEDED_VALUE;
    }
}
