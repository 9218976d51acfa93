import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Ended, startLorikeet } from "../support/child.ts";

const STEPS = 6;
const KILLS = 3;

let root: string;
let whole: Buffer;

/** A run of six steps over data that is shuffled, packed and read more than once, with dropout, saved every step. */
function trainArguments(name: string): string[] {
  return [
    ...["train", "--data", join(root, "chats.jsonl"), "--output-dir", join(root, name)],
    ...["--max-steps", String(STEPS), "--save-steps", "1", "--lora-dropout", "0.1", "--packing"],
    ...["--max-length", "32", "--per-device-train-batch-size", "2", "--r", "2"],
    ...["--threads", "1", "--no-report"],
  ];
}

const adapterOf = (name: string): Promise<Buffer> =>
  readFile(join(root, name, "adapter_model.safetensors"));

/** What the steps of a run's metrics say that is no time and no memory. */
async function stepsOf(name: string): Promise<{ step: number }[]> {
  const lines = (await readFile(join(root, name, "metrics.jsonl"), "utf8")).trim().split("\n");
  return lines
    .map((line) => JSON.parse(line) as Record<"type", string> & Record<string, number>)
    .filter(({ type }) => type === "step")
    .map(({ step, loss, learningRate, gradNorm, tokens, epoch }) => {
      return { step: step!, loss, learningRate, gradNorm, tokens, epoch };
    });
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-interrupted-"));
  const chats = Array.from({ length: 9 }, (_, i) => ({
    messages: [
      { role: "user", content: `Question ${i}` },
      { role: "assistant", content: `Squawk! ${"tree ".repeat(i)}` },
    ],
  }));
  await writeFile(join(root, "chats.jsonl"), chats.map((chat) => JSON.stringify(chat)).join("\n"));
  const { code, err } = await startLorikeet(trainArguments("whole")).ended;
  expect(code, err).toBe(0);
  whole = await adapterOf("whole");
}, 300_000);

afterAll(() => rm(root, { recursive: true, force: true }));

test("killed at random moments and resumed, a run gives the bytes of one that was not", async () => {
  const folder = join(root, "killed");
  const delays: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    const run = startLorikeet([...trainArguments("killed"), "--resume"]);
    // any moment from the first step of this process on: in a step, in a save, between two
    await run.shows(`/${STEPS}  loss`);
    delays.push(Math.random() * 200);
    await wait(delays.at(-1));
    run.process.kill("SIGKILL");
    await run.ended;
  }
  const last = await startLorikeet([...trainArguments("killed"), "--resume"]).ended;
  expect(last.code, last.err).toBe(0);
  const same = (await adapterOf("killed")).equals(whole);
  expect(same, `killed after ${delays.join(", ")} ms`).toBe(true);
  const steps = await stepsOf("killed");
  expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  expect(steps).toEqual(await stepsOf("whole"));
  expect((await readdir(folder)).filter((name) => name.includes(".tmp"))).toEqual([]);
}, 600_000);

test("Ctrl-C saves and exits with 130; --resume goes on to the same bytes", async () => {
  const run = startLorikeet(trainArguments("stopped"));
  await run.shows(`2/${STEPS}  loss`);
  run.process.kill("SIGINT");
  const stopped: Ended = await run.ended;
  expect(stopped.code, stopped.err).toBe(130);
  expect(stopped.out).toContain("--resume");
  const saved = (await readdir(join(root, "stopped"))).filter((name) => /^checkpoint/.test(name));
  expect(saved.length).toBeGreaterThan(0);
  expect(saved).not.toContain(`checkpoint-${STEPS}`);
  const resumed = await startLorikeet([...trainArguments("stopped"), "--resume"]).ended;
  expect(resumed.code, resumed.err).toBe(0);
  expect((await adapterOf("stopped")).equals(whole)).toBe(true);
}, 300_000);
