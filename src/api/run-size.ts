import type { WeightSource } from "../backends/backend.ts";
import type { Node } from "../ir/node.ts";
import { sizeOf } from "../tensor/shape.ts";

/** How much a run trains, on what. */
export interface RunSize {
  /** What was read, held-out samples included; of images there are no tokens. */
  readonly data: { readonly samples: number; readonly tokens?: number; readonly supervisedTokens?: number }; // prettier-ignore
  readonly unit: "samples" | "images";
  readonly trainableParameters: number;
  /** Of the base and what is trained beside it. */
  readonly parameters: number;
  readonly totalSteps: number;
}

/** What tells a run's size. */
interface SizedTask {
  readonly data: { readonly report: RunSize["data"]; readonly totalSteps: number };
  readonly parameters: readonly Node[];
  readonly base: { readonly weights: WeightSource };
  readonly unit?: "images";
}

/** The size of the run of `task`. */
export function runSize({ data, parameters, base: { weights }, unit }: SizedTask): RunSize {
  const names = new Set(weights.names);
  const sizes = parameters.map(({ name, shape }) => ({
    size: sizeOf(shape),
    isOwn: !names.has(name!),
  }));
  const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);
  const stored = sum(weights.names.map((name) => sizeOf(weights.get(name).shape)));
  return {
    data: data.report,
    unit: unit ?? "samples",
    trainableParameters: sum(sizes.map(({ size }) => size)),
    parameters: stored + sum(sizes.filter(({ isOwn }) => isOwn).map(({ size }) => size)),
    totalSteps: data.totalSteps,
  };
}
