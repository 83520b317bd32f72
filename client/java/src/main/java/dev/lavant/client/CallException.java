package dev.lavant.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.lavant.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Error of a call that failed, or of a batch that was rejected. */
public final class CallException extends LavantException {
    private static final long serialVersionUID = 1L;
    private static final String DOMAIN = "lavant.dev";
    private static final String PREFIX = "ERROR_REASON_";

    /** Status as it was received. */
    private final com.google.rpc.Status status;

    private CallException(com.google.rpc.Status status, String text) {
        super(text);
        this.status = status;
    }

    static CallException of(com.google.rpc.Status status) {
        Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
        String reason = detail(status, ErrorInfo.class)
                .filter(CallException::isOurs)
                .map(ErrorInfo::getReason)
                .orElse("");
        return new CallException(status, (reason.isEmpty() ? code.name() : reason) + ": " + status.getMessage());
    }

    static CallException of(Status status, Metadata trailers) {
        com.google.rpc.Status whole = StatusProto.fromStatusAndTrailers(status, trailers);
        // gRPC has no place in its status for the cause of a broken connection, such as a certificate that is not
        // trusted.
        if (status.getCause() != null && whole.getDetailsCount() == 0) {
            String message = whole.getMessage() + " (" + status.getCause() + ")";
            whole = whole.toBuilder().setMessage(message).build();
        }
        return of(whole);
    }

    /** Return the error of a connection that failed. */
    static CallException cut(String message) {
        return of(Status.UNAVAILABLE.withDescription(message), new Metadata());
    }

    /** Return the error of asking for the result of a run that has not ended. */
    static CallException notEnded(String run) {
        ErrorInfo info = ErrorInfo.newBuilder()
                .setDomain(DOMAIN)
                .setReason(ErrorReason.ERROR_REASON_RUN_NOT_ENDED.name().substring(PREFIX.length()))
                .putMetadata("run_id", run)
                .build();
        return of(com.google.rpc.Status.newBuilder()
                .setCode(Status.Code.FAILED_PRECONDITION.value())
                .setMessage("run " + run + " has not ended")
                .addDetails(Any.pack(info))
                .build());
    }

    /** Return the error of an answer that no sound server sends. */
    static CallException unsound(String message) {
        return of(Status.INTERNAL.withDescription(message), new Metadata());
    }

    /** Return the error of a call without a response for so long. */
    static CallException silent(Duration silence) {
        String message = "nothing came for %.1f s".formatted(silence.toMillis() / 1e3);
        return of(Status.DEADLINE_EXCEEDED.withDescription(message), new Metadata());
    }

    /** Return the same error for another place where it is thrown, with this one as its cause. */
    CallException again() {
        CallException again = of(status);
        again.initCause(this);
        return again;
    }

    /**
     * Return why the server refused, to compare with the values of the contract, which say what to do.
     *
     * @return the reason; {@code ERROR_REASON_UNSPECIFIED} if no lavant server spoke, as when the connection failed;
     *     {@code UNRECOGNIZED} for a reason that is newer than this client, whose name is {@link #reasonName}
     */
    public ErrorReason reason() {
        String name = reasonName();
        if (name.isEmpty()) {
            return ErrorReason.ERROR_REASON_UNSPECIFIED;
        }
        try {
            return ErrorReason.valueOf(PREFIX + name);
        } catch (IllegalArgumentException newer) {
            return ErrorReason.UNRECOGNIZED;
        }
    }

    /**
     * Return the name of the reason, without the prefix {@code ERROR_REASON_}.
     *
     * @return the name; empty if no lavant server spoke
     */
    public String reasonName() {
        return info().map(ErrorInfo::getReason).orElse("");
    }

    /**
     * Return the status code of gRPC.
     *
     * @return the code
     */
    public Status.Code code() {
        return Status.fromCodeValue(status.getCode()).getCode();
    }

    /**
     * Return the delay before another try that the server asks for.
     *
     * @return the delay, if the server asks for one
     */
    public Optional<Duration> retryAfter() {
        return detail(RetryInfo.class).map(info -> Durations.of(info.getRetryDelay()));
    }

    /**
     * Return the metadata of the reason, such as {@code run_id} or {@code limit}.
     *
     * @return the metadata
     */
    public Map<String, String> metadata() {
        return info().map(ErrorInfo::getMetadataMap).orElse(Map.of());
    }

    /**
     * Return the violations of INVALID_FIELD.
     *
     * @return path and description of each field
     */
    public List<BadRequest.FieldViolation> violations() {
        return detail(BadRequest.class).map(BadRequest::getFieldViolationsList).orElse(List.of());
    }

    /**
     * Return a message that came with the status, such as {@code ProducerFenced}.
     *
     * @param type class of the message
     * @param <T> type of the message
     * @return the message, if there is one
     */
    public <T extends Message> Optional<T> detail(Class<T> type) {
        return detail(status, type);
    }

    private Optional<ErrorInfo> info() {
        return detail(ErrorInfo.class).filter(CallException::isOurs);
    }

    private static boolean isOurs(ErrorInfo info) {
        return info.getDomain().equals(DOMAIN);
    }

    private static <T extends Message> Optional<T> detail(com.google.rpc.Status status, Class<T> type) {
        for (Any detail : status.getDetailsList()) {
            try {
                if (detail.is(type)) {
                    return Optional.of(detail.unpack(type));
                }
            } catch (InvalidProtocolBufferException damaged) {
                // A proxy has damaged it: the same as none.
            }
        }
        return Optional.empty();
    }
}
