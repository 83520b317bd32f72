// Runs the reference server of Durable Streams: durable_streams.mjs PORT FOLDER
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
await new DurableStreamTestServer({ host: "127.0.0.1", port: Number(port), dataDir, compression: false }).start()
