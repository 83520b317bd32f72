/** Examples of the documentation that use React, as a module for a page. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const PACKAGE = resolve(import.meta.dirname, "../../..");

/** Return the first example in TSX of a file, with code that uses it, as one module. */
export async function bundled(file: string, use: string): Promise<string> {
  const [, example = ""] = /```tsx\n(.*?)```/s.exec(readFileSync(join(PACKAGE, file), "utf8")) ?? [];
  const { outputFiles } = await build({
    stdin: { contents: `${example}\n${use}`, loader: "tsx", resolveDir: PACKAGE },
    alias: { "@lavant/client/web": join(PACKAGE, "build/src/web.js") },
    bundle: true,
    define: { "process.env.NODE_ENV": '"production"' },
    format: "esm",
    jsx: "automatic",
    write: false,
  });
  return outputFiles[0]?.text ?? "";
}
