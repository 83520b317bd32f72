/** Messages and services of the contract, for use with @bufbuild/protobuf and @connectrpc/connect. */
export * from "./gen/lavant/v1/access_service_pb.js";
export * from "./gen/lavant/v1/audit_pb.js";
export * from "./gen/lavant/v1/error_pb.js";
export * from "./gen/lavant/v1/evaluation_service_pb.js";
export * from "./gen/lavant/v1/event_pb.js";
export * from "./gen/lavant/v1/event_service_pb.js";
export * from "./gen/lavant/v1/rule_pb.js";
export * from "./gen/lavant/v1/rule_service_pb.js";
export * from "./gen/lavant/v1/run_pb.js";
export * from "./gen/lavant/v1/run_service_pb.js";
export * from "./gen/lavant/v1/score_service_pb.js";
