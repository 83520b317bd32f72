"""Exit statuses of commands, beside 0 for success."""

FAILED = 1
USAGE = 2
RUN_FAILED, RUN_CANCELLED, RUN_TIMED_OUT, RUN_ABANDONED = 10, 11, 12, 13
UNKNOWN_OUTCOME = 19  # a state that only a newer server knows
BELOW_BOUND = 20
NOT_ENDED = 124  # as timeout(1)
INTERRUPTED = 130  # as a shell reports SIGINT,
PIPE_CLOSED = 141  # SIGPIPE
TERMINATED = 143  # and SIGTERM
