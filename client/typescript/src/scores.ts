import { create } from "@bufbuild/protobuf";
import { type CallOptions, type Connection, pages, unary } from "./calls.js";
import { type Score, type ScoreRecorded, ScoreSchema } from "./gen/lavant/v1/event_pb.js";
import { type ListScoresResponse, ScoreService } from "./gen/lavant/v1/score_service_pb.js";

export interface ScoreOptions extends CallOptions {
  /** Name of what is scored, such as "helpful". */
  name: string;
  /** A number, a verdict or a class. */
  value: number | boolean | string;
  /** Reason for the value, for people. */
  explanation?: string;
  /** Who made the score. */
  evaluator?: string;
  /** Whether a higher value is better. Default true. */
  higherIsBetter?: boolean;
  labels?: Record<string, string>;
  /** ID of the score, of which one is recorded. Default: a new one. */
  scoreId?: string;
}

/** Record a score, and return its ID. */
export async function recordScore(connection: Connection, runId: string, options: ScoreOptions): Promise<string> {
  const { scoreId = crypto.randomUUID(), labels = {} } = options;
  const request = { scoreId, runId, labels, score: scoreOf(options) };
  await unary(connection, ScoreService.method.recordScore, request, options);
  return scoreId;
}

/** Yield the scores of a run. */
export async function* listScores(
  connection: Connection,
  subjectRunId: string,
  options?: CallOptions,
): AsyncGenerator<ScoreRecorded, void> {
  const request = (pageToken: string) => ({ filter: { subjectRunId }, pageToken });
  for await (const page of pages(connection, ScoreService.method.listScores, request, options)) {
    yield* (page as ListScoresResponse).scores;
  }
}

function scoreOf({ name, value, explanation = "", evaluator = "", higherIsBetter }: ScoreOptions): Score {
  const score = create(ScoreSchema, { name, explanation, ...(evaluator !== "" && { evaluator: { name: evaluator } }) });
  if (typeof value === "number") score.value = { case: "number", value };
  else if (typeof value === "boolean") score.value = { case: "passed", value };
  else score.value = { case: "label", value };
  if (higherIsBetter !== undefined) score.higherIsBetter = higherIsBetter;
  return score;
}
