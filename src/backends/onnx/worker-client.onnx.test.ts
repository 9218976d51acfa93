import type { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
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
