import { spawn } from "node:child_process";
import { appendFile, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { TrainEvent } from "../../train/events.ts";
import { openMetrics, readMetrics } from "./metrics.ts";

async function file(): Promise<string> {
  return join(await mkdtemp(join(tmpdir(), "lorikeet-metrics-")), "metrics.jsonl");
}

function step(number: number, loss = 2): TrainEvent {
  return {
    type: "step",
    step: number,
    totalSteps: 10,
    epoch: number / 10,
    loss,
    learningRate: 1e-3,
    gradNorm: 1,
    tokens: number * 100,
    tokensPerSecond: 100,
    memoryBytes: 1e9,
  };
}

test("each event is a line of JSON, there as soon as it is written", async () => {
  const path = await file();
  const metrics = await openMetrics(path);
  await metrics.append(step(1));
  await metrics.append({ type: "warning", code: "truncated", message: "two\nlines" });
  const lines = (await readFile(path, "utf8")).split("\n");
  expect(lines).toHaveLength(3);
  expect(JSON.parse(lines[0]!)).toEqual(step(1));
  await metrics.close();
});

test("a loss that is no number survives as such", async () => {
  const path = await file();
  const metrics = await openMetrics(path);
  await metrics.append(step(1, NaN));
  await metrics.close();
  expect(await readFile(path, "utf8")).toContain('"loss":null');
  expect(await readMetrics(path)).toEqual([step(1, NaN)]);
});

test("resuming keeps what led to the checkpoint, and drops the rest and a torn line", async () => {
  const path = await file();
  const before = await openMetrics(path);
  for (const event of [step(1), step(2), step(3)]) await before.append(event);
  await before.append({ type: "checkpoint", step: 3, path: "checkpoint-3" });
  await before.append(step(4));
  await before.close();
  await appendFile(path, '{"type":"step","st');

  const after = await openMetrics(path, 3);
  await after.append(step(4, 1));
  await after.close();
  const checkpoint = { type: "checkpoint", step: 3, path: "checkpoint-3" };
  expect(await readMetrics(path)).toEqual([step(1), step(2), step(3), checkpoint, step(4, 1)]);
});

test("resuming tells warnings and the checkpoint it began from once", async () => {
  const path = await file();
  const warning: TrainEvent = { type: "warning", code: "truncated", message: "2 rows" };
  const checkpoint: TrainEvent = { type: "checkpoint", step: 1, path: "checkpoint-1" };
  const events = [warning, step(1), checkpoint];
  for (const resumeFrom of [undefined, 1, 1]) {
    const metrics = await openMetrics(path, resumeFrom);
    for (const event of resumeFrom ? [warning, checkpoint] : events) await metrics.append(event);
    await metrics.close();
  }
  expect(await readMetrics(path)).toEqual(events);
});

test("a new run starts an empty file", async () => {
  const path = await file();
  for (const number of [1, 2]) {
    const metrics = await openMetrics(path);
    await metrics.append(step(number));
    await metrics.close();
  }
  expect(await readMetrics(path)).toEqual([step(2)]);
});

test("kill -9 loses no line that was written", { timeout: 30_000 }, async () => {
  const path = await file();
  const source = `
    import "${new URL("../../../scripts/typescript.js", import.meta.url).href}";
    const { openMetrics } = await import("${new URL("metrics.ts", import.meta.url).href}");
    const metrics = await openMetrics(process.argv[1]);
    for (let step = 1; ; step++) {
      await metrics.append({ type: "checkpoint", step, path: "x" });
      process.stdout.write(step + "\\n");
    }`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source, path]);
  let told = "";
  await new Promise<void>((resolve) => {
    child.stdout.on("data", (chunk: Buffer) => {
      told += chunk.toString();
      if (told.length > 2000) child.kill("SIGKILL");
    });
    child.on("close", () => resolve());
  });
  const last = Number(told.slice(0, told.lastIndexOf("\n")).split("\n").at(-1));
  const events = await readMetrics(path);
  expect(last).toBeGreaterThan(100);
  expect(events.length).toBeGreaterThanOrEqual(last);
  events.forEach((event, i) => expect(event).toMatchObject({ step: i + 1 }));
});
