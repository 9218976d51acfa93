import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
import { startTypeScript } from "../../../test/support/child.ts";
import { WorkerClient } from "./worker-client.ts";

it("rejects pending and later requests with engine-crashed when the thread ends", async () => {
  const client = new WorkerClient();
  const pending = client.send({ type: "clear" });
  await (Reflect.get(client, "worker") as Worker).terminate();
  await expect(pending).rejects.toMatchObject({ code: "engine-crashed" });
  await expect(client.send({ type: "clear" })).rejects.toMatchObject({ code: "engine-crashed" });
  await client.dispose();
});

it("rejects when the thread throws outside of a request", async () => {
  const client = new WorkerClient();
  (Reflect.get(client, "worker") as Worker).postMessage(null);
  const pending = client.send({ type: "clear" });
  await expect(pending).rejects.toMatchObject({ code: "engine-crashed" });
  await client.dispose();
});

it("ends the process with its own status while a program runs", async () => {
  const from = (file: string): string => JSON.stringify(pathToFileURL(`src/${file}`).href);
  const file = join(mkdtempSync(join(tmpdir(), "lorikeet-exit-")), "exit.ts");
  writeFileSync(
    file,
    `import { createOnnxEngine } from ${from("backends/onnx/engine.ts")};
    import { input } from ${from("ops/leaf.ts")};
    import { matmul } from ${from("ops/matmul.ts")};
    const n = 768;
    const x = input("x", [n, n]);
    let y = x;
    for (let i = 0; i < 40; i++) y = matmul(y, x);
    const weights = { names: [], get: () => { throw Error(); }, read: () => Promise.reject() };
    const engine = await createOnnxEngine({ weights });
    const program = await engine.compile({ outputs: { y }, gradients: {} });
    const feed = { dtype: "f32", shape: [n, n], data: new Float32Array(n * n) };
    void program.run({ x: feed });
    setTimeout(() => process.exit(7), 50);`,
  );
  const { code, signal, err } = await startTypeScript(file).ended;
  expect({ code, signal, err }).toEqual({ code: 7, signal: null, err: "" });
}, 30_000);
