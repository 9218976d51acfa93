import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { TrainEvent } from "../src/train/events.ts";
import { loadAdapter } from "../src/index.ts";
import { lorikeet } from "./support/command.ts";

test("train: adapter, metrics, curve and report; a second run is refused; resume and generate go on from it", async () => {
  const folder = join(await mkdtemp(join(tmpdir(), "lorikeet-train-")), "out");
  const flags = [
    ...["--data", "examples/lorikeet-chat.heldout.jsonl", "--output-dir", folder],
    ...["--max-steps", "2", "--r", "2", "--sample-prompts", "Hello!", "--threads", "1"],
  ];
  const first = await lorikeet("train", ...flags, "--resume", "--json");
  expect(first.code).toBe(0);
  expect(first.out).toContain('{"type":"warning","code":"nothing-to-resume"');
  expect(first.err).not.toContain("trainable");
  expect(eventsIn(first.out, "end")).toMatchObject([{ reason: "completed", step: 2 }]);
  expect(eventsIn(first.out, "sample")).toMatchObject([{ prompt: "Hello!" }]);
  expect(await readdir(folder)).toEqual(
    expect.arrayContaining([
      "adapter_config.json",
      "adapter_model.safetensors",
      "loss.svg",
      "metrics.jsonl",
      "report.html",
      "runs",
      "train-config.yaml",
    ]),
  );
  expect(await readFile(join(folder, "report.html"), "utf8")).toContain("<td>Hello!</td>");

  const again = await lorikeet("train", ...flags);
  expect([again.code, again.out]).toEqual([1, ""]);
  expect(again.err).toContain("error[output-exists]");

  const saved = join(folder, "train-config.yaml");
  const resumed = await lorikeet("train", saved, "--resume", "--max-steps", "3", "--json");
  expect(resumed.code).toBe(0);
  expect(resumed.out).not.toContain("nothing-to-resume");
  expect(eventsIn(resumed.out, "step")).toMatchObject([{ step: 3 }]);
  const other = await lorikeet("train", saved, "--resume", "--r", "4", "--lora-dropout", "0.5");
  expect([other.code, other.out]).toEqual([1, ""]);
  expect(other.err).toContain("error[run-changed]");
  expect(other.err).toContain("r is 4, it was 2");
  expect(other.err).toContain("lora_dropout is 0.5, it was 0");
  const steps = eventsIn(await readFile(join(folder, "metrics.jsonl"), "utf8"), "step");
  expect(steps).toMatchObject([{ step: 1 }, { step: 2 }, { step: 3 }]);

  const generated = await lorikeet(
    "generate",
    "--prompt",
    "Once",
    "-a",
    folder,
    "--max-new-tokens",
    "3",
    "--json",
  );
  expect(generated.code).toBe(0);
  expect(JSON.parse(generated.out)).toMatchObject({ tokens: 3 });
}, 180_000);

function eventsIn(lines: string, type: TrainEvent["type"]): TrainEvent[] {
  return lines
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as TrainEvent)
    .filter((event) => event.type === type);
}

test("train stops early and keeps the adapter of the best evaluation, even if that is the base's", async () => {
  const folder = join(await mkdtemp(join(tmpdir(), "lorikeet-best-")), "out");
  const { code, out, err } = await lorikeet(
    ...["train", "--data", "examples/lorikeet-chat.heldout.jsonl", "--output-dir", folder],
    ...["--validation-split", "0.1", "--max-steps", "9", "--r", "2", "--learning-rate", "1"],
    ...["--eval-steps", "1", "--early-stopping-patience", "2", "--load-best-model-at-end"],
    ...["--threads", "1", "--no-report"],
  );
  expect(code, err).toBe(0);
  expect(err).toMatch(
    /^\d+ samples, [\d,]+ of [\d,]+ tokens supervised, [\d,]+ trainable parameters \(0\.\d+ %\), 9 steps\n/,
  );
  expect(out).toMatch(
    /^2 steps in .*\nstopped early: lowest evaluation loss \S+ at step 0, whose/m,
  );
  const { tensors } = await loadAdapter(folder);
  for (const [name, { data }] of tensors)
    if (name.includes("lora_B")) expect(data.every((value) => value === 0)).toBe(true);
}, 180_000);
