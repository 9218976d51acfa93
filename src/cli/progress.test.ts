import { Writable } from "node:stream";
import { expect, test } from "vitest";
import type { TrainEvent } from "../train/events.ts";
import { showProgress } from "./progress.ts";

class Screen extends Writable {
  text = "";
  readonly isTTY: boolean;
  readonly columns = 100;
  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    // colours and cursor movements are not what is tested
    this.text += chunk.toString().replace(/\u001b\[[?\d;]*[A-Za-z]/g, "");
    done();
  }
}

function step(number: number): TrainEvent {
  return {
    type: "step",
    step: number,
    totalSteps: 100,
    epoch: 1,
    loss: 1.23456,
    learningRate: 2e-4,
    gradNorm: 1,
    tokens: 1,
    tokensPerSecond: 5074.4,
    memoryBytes: 600 * 2 ** 20,
  };
}

const evaluation: TrainEvent = { type: "eval", step: 50, loss: 0.5, perplexity: 1.65, best: true };

test("without a terminal: about twenty lines, and one for each evaluation and warning", () => {
  const screen = new Screen(false);
  const progress = showProgress(screen);
  for (let number = 1; number <= 100; number++) progress.show(step(number));
  progress.show(evaluation);
  progress.show({ type: "warning", code: "truncated", message: "2 samples were cut" });
  progress.show({ type: "checkpoint", step: 100, path: "out/checkpoint-100" });
  progress.stop();
  const lines = screen.text.trimEnd().split("\n");
  expect(lines[0]).toBe("1/100  loss 1.235  lr 2.0e-4  5074 tok/s  600 MiB");
  expect(lines[1]).toMatch(/^5\/100 .* 600 MiB {2}\d+\.\d s left$/);
  expect(lines).toHaveLength(21 + 3);
  expect(lines.slice(-3)).toEqual([
    "step 50  evaluation loss 0.500  perplexity 1.6  best so far",
    "warning[truncated]: 2 samples were cut",
    "saved out/checkpoint-100",
  ]);
});

test("on a terminal: a bar with the numbers, and the evaluation as a line above it", () => {
  const screen = new Screen(true);
  const progress = showProgress(screen);
  progress.show(step(1));
  progress.show(step(50));
  progress.show(evaluation);
  progress.show(step(100));
  progress.stop();
  expect(screen.text).toContain("evaluation loss 0.500");
  expect(screen.text).toContain("100/100  loss 1.235  lr 2.0e-4  5074 tok/s  600 MiB");
  expect(screen.text).toContain("█".repeat(14));
});
