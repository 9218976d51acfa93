import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { TrainEvent } from "../../train/events.ts";
import { checkTrainConfig } from "../train-config-read.ts";
import { lossCurve } from "./loss-curve.ts";
import { recordRun } from "./record.ts";
import { renderReport } from "./report.ts";
import { formatBytes, formatDuration, runNumbers } from "./run-numbers.ts";

function step(number: number, loss: number): TrainEvent {
  return {
    type: "step",
    step: number,
    totalSteps: 4,
    epoch: number / 2,
    loss,
    learningRate: 1e-3,
    gradNorm: 1,
    tokens: number * 100,
    tokensPerSecond: 100,
    memoryBytes: 2 ** 30,
  };
}

const EVENTS: TrainEvent[] = [
  { type: "eval", step: 0, loss: 4, perplexity: 54.6, best: true },
  step(1, 4),
  step(2, 3),
  step(3, NaN),
  { type: "warning", code: "truncated", message: "1 sample <cut>" },
  step(4, 2),
  { type: "eval", step: 4, loss: 1, perplexity: 2.7, best: true },
  {
    type: "end",
    reason: "completed",
    step: 4,
    epoch: 2,
    tokens: 400,
    seconds: 2,
    loss: 3,
    best: { step: 4, loss: 1 },
  },
];

describe("lossCurve", () => {
  test("draws a line for each kind of loss, without the steps that have none", () => {
    const svg = lossCurve(EVENTS, "A <run>");
    expect(svg).toContain("A &lt;run&gt;");
    const raw = /class="raw" d="([^"]*)"/.exec(svg)?.[1] ?? "";
    expect(raw.match(/[ML]/g)).toHaveLength(3);
    expect(svg.match(/<circle/g)).toHaveLength(2);
    expect(svg).toContain(">train 2.00<");
    expect(svg).toContain(">eval 1.00<");
    expect(svg).not.toContain("NaN");
  });

  test("a higher loss stands higher", () => {
    const heights = [...lossCurve(EVENTS, "").matchAll(/<circle cx="[\d.]+" cy="([\d.]+)"/g)];
    const [before, after] = heights.map((match) => Number(match[1]));
    expect(before).toBeLessThan(after!);
  });

  test("viewers without CSS variables see its colours, on white", async () => {
    const { data, info } = await sharp(Buffer.from(lossCurve(EVENTS, "Loss")))
      .raw()
      .toBuffer({ resolveWithObject: true });
    const colours = new Set<string>();
    for (let i = 0; i < data.length; i += info.channels)
      colours.add(data.subarray(i, i + 3).toString("hex"));
    expect(data.subarray(10 * info.channels, 10 * info.channels + 3).toString("hex")).toBe(
      "ffffff",
    );
    expect([...colours]).toEqual(expect.arrayContaining(["ffffff", "2563eb", "d9480f"]));
  });

  test("a run without events is an empty picture, not an error", () => {
    expect(lossCurve([], "nothing")).not.toMatch(/NaN|undefined/);
  });
});

test("runNumbers tells what the events say", () => {
  const told = runNumbers(EVENTS).map(({ label, value, note }) => [label, value, note]);
  expect(told).toEqual([
    ["Evaluation loss", "1.00", "from 4.00, 75 % lower"],
    ["Training loss", "2.00", undefined],
    ["Steps", "4", "2.0 epochs"],
    ["Time", "2.0 s", undefined],
    ["Speed", "200", "tokens a second"],
    ["Memory", "1.0 GiB", undefined],
  ]);
  expect(runNumbers([])).toEqual([]);
});

test("durations and sizes read as a person says them", () => {
  const durations = [0.04, 9.96, 59.6, 65, 3599.7, 7380].map(formatDuration);
  expect(durations).toEqual([
    "0.0 s",
    "10.0 s",
    "1 min 0 s",
    "1 min 5 s",
    "1 h 0 min",
    "2 h 3 min",
  ]);
  const sizes = [291 * 2 ** 10, 512 * 2 ** 20, 1.9 * 2 ** 30].map(formatBytes);
  expect(sizes).toEqual(["291 KiB", "512 MiB", "1.9 GiB"]);
});

test("the report is one page: escaped, with answers, warnings and every setting", () => {
  const html = renderReport({
    title: "Run & report",
    config: checkTrainConfig({ data: "a.jsonl", r: 4 }),
    events: EVENTS,
    answers: [{ prompt: "<b>?", base: "\nno", adapted: "yes" }],
    numbers: [{ label: "Trained", value: "1 K" }],
    version: "1.2.3",
  });
  expect(html).toContain("<h1>Run &amp; report</h1>");
  expect(html).toContain('<td>&lt;b&gt;?</td><td class="base">no</td>');
  expect(html).toContain("1 sample &lt;cut&gt;");
  expect(html).toContain('<div class="changed"><dt>r</dt><dd>4</dd></div>');
  expect(html).toContain("<div><dt>lora_alpha</dt><dd>32</dd></div>");
  expect(html).not.toMatch(/<(script|link|img)|https?:\/\/(?!www\.w3\.org)/);
});

test("recordRun leaves settings, metrics, TensorBoard file, curve and report in the folder", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-run-"));
  const config = checkTrainConfig({ data: "a.jsonl", output_dir: folder, logging_steps: 2 });
  const run = await recordRun(config);
  for (const event of EVENTS) await run.record(event);
  await run.report({ title: "Run", answers: [], version: "1.2.3" });
  await run.close();
  const files = await readdir(folder);
  expect(files.sort()).toEqual([
    "loss.svg",
    "metrics.jsonl",
    "report.html",
    "runs",
    "train-config.yaml",
  ]);
  expect(await readdir(join(folder, "runs"))).toHaveLength(1);
  const settings = parse(await readFile(join(folder, "train-config.yaml"), "utf8")) as object;
  expect(settings).toMatchObject({ data: ["a.jsonl"], logging_steps: 2 });
  const lines = (await readFile(join(folder, "metrics.jsonl"), "utf8")).trim().split("\n");
  const logged = lines
    .map((line) => JSON.parse(line) as TrainEvent)
    .flatMap((event) => (event.type === "step" ? [event.step] : []));
  expect(logged).toEqual([1, 2, 4]);
});
