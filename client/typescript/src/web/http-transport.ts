import {
  create,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromJson,
  type JsonObject,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import { errorOf } from "../errors.js";
import { StreamEndReason } from "../gen/lavant/v1/event_service_pb.js";
import { type Block, blocksOf } from "./blocks.js";
import { pathOf } from "./http-requests.js";

const LENIENT = { ignoreUnknownFields: true };

/**
 * Transport of the calls that read, over a server's HTTP API: JSON, and server-sent events as the frames of streams. Each
 * event is a frame of its own, whose resume token is its ID.
 */
export function createHttpTransport(baseUrl: string): Transport {
  async function send(
    method: DescMethodUnary | DescMethodStreaming,
    message: MessageShape<DescMessage>,
    headers: HeadersInit | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const url = new URL(pathOf(method.name, message), baseUrl);
    const response = await fetch(url, { headers: headers ?? {}, signal: signal ?? null }).catch(broken);
    if (response.status >= 400) throw await refusal(response);
    return response;
  }

  return {
    async unary<I extends DescMessage, O extends DescMessage>(
      method: DescMethodUnary<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      headers: HeadersInit | undefined,
      input: MessageInitShape<I>,
    ): Promise<UnaryResponse<I, O>> {
      const limit = AbortSignal.timeout(timeoutMs ?? 60_000);
      const both = signal === undefined ? limit : AbortSignal.any([signal, limit]);
      const response = await send(method, create(method.input, input), headers, both);
      const json = (await response.json()) as JsonObject;
      const message = fromJson(method.output, method.name === "GetRun" ? { run: json } : json, LENIENT);
      return answer(method, response, { stream: false as const, message });
    },

    async stream<I extends DescMessage, O extends DescMessage>(
      method: DescMethodStreaming<I, O>,
      signal: AbortSignal | undefined,
      _timeoutMs: number | undefined,
      headers: HeadersInit | undefined,
      input: AsyncIterable<MessageInitShape<I>>,
    ): Promise<StreamResponse<I, O>> {
      const [request] = await takeOne(input);
      const response = await send(method, create(method.input, request), headers, signal);
      return answer(method, response, { stream: true as const, message: frames(method, response) });
    },
  };
}

async function* frames<O extends DescMessage>(
  method: DescMethodStreaming<DescMessage, O>,
  response: Response,
): AsyncGenerator<MessageShape<O>> {
  // 204: everything was read, up to the end of the run.
  if (response.body === null) return yield fromJson(method.output, { end: { reason: END.RUN_FINISHED } });
  const frameOf = method.name === "WatchRuns" ? watchFrame : streamFrame;
  for await (const block of blocksOf(response.body, broken)) {
    // The session, which follows the token, is sent as a parameter.
    yield fromJson(method.output, { ...frameOf(block), resume_token: block.id.split("~")[0] ?? "" }, LENIENT);
  }
}

const END = { RUN_FINISHED: "STREAM_END_REASON_RUN_FINISHED" };

function streamFrame(block: Block): JsonObject {
  const { event, data, id } = block;
  if (data === "") return { heartbeat: {} };
  const json = JSON.parse(data) as JsonObject;
  if (event === "opened") return { opened: { ...json, fence: "0", start_token: id.split("~")[0] ?? "" } };
  if (event === "caught_up") return { caught_up: json };
  return event === "end" ? { end: endOf(json, block) } : { events: { events: [json] } };
}

function watchFrame(block: Block): JsonObject {
  const { event, data } = block;
  if (data === "") return {};
  const json = JSON.parse(data) as JsonObject;
  if (event === "run") return { runs: [json] };
  if (event === "left") return { left_run_ids: [json.run_id ?? ""] };
  if (event === "deleted") return { deleted_run_ids: [json.run_id ?? ""] };
  return event === "caught_up" ? { caught_up: true } : event === "end" ? { end: endOf(json, block) } : {};
}

/** Return a planned end; throw the error of another one. */
function endOf({ reason, reconnect, message }: JsonObject, { retryMs }: Block): JsonObject {
  const name = String(reason);
  if (!(name in StreamEndReason)) throw errorOf(String(message ?? name), { reason: name });
  const retryDelay = retryMs === undefined ? {} : { retry_delay: `${retryMs / 1000}s` };
  return { reason: `STREAM_END_REASON_${name}`, reconnect: reconnect === true, ...retryDelay };
}

/** Throw what fetch throws of a connection as the error that it is in other transports. */
function broken(thrown: unknown): never {
  throw new ConnectError(String(thrown), Code.Unavailable, undefined, undefined, thrown);
}

async function refusal(response: Response): Promise<Error> {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text);
    const violations = (error.fields ?? []).map((field: { path: string; description: string }) => ({
      field: field.path,
      description: field.description,
    }));
    const wait = error.retry_after === undefined ? {} : { retryAfterMs: error.retry_after * 1000 };
    return errorOf(error.message, { reason: error.reason, violations, ...wait });
  } catch {
    // Not lavant, but a proxy: only these say that the server is out of reach.
    const code = [429, 502, 503, 504].includes(response.status) ? Code.Unavailable : Code.Unknown;
    return new ConnectError(`HTTP ${response.status}`, code, response.headers);
  }
}

function answer<M extends DescMethodUnary | DescMethodStreaming, T extends object>(
  method: M,
  response: Response,
  rest: T,
) {
  const trailer = new Headers();
  return { service: method.parent, method, header: response.headers, trailer, ...rest };
}

async function takeOne<T>(items: AsyncIterable<T>): Promise<[T]> {
  for await (const item of items) return [item];
  throw new ConnectError("a stream needs a request", Code.Internal);
}
