import type { Tensors } from "../backends/backend.ts";
import { type Graph, topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import type { HfConfig } from "../models/config.ts";
import { causalLM, encoderModel } from "../models/registry.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { input, isTrainable } from "../ops/leaf.ts";
import { fuseLoss } from "../passes/fuse-loss.ts";
import { insertLora } from "../passes/lora.ts";
import { replaceWeights } from "../passes/replace-weights.ts";
import { insertTokenRows, type TokenRows } from "../passes/token-rows.ts";
import { unfreeze } from "../passes/unfreeze.ts";
import { peftKey } from "../adapter/adapter.ts";
import { stepGraph, type StepPlan } from "./step-graph.ts";
import { plainLogits, plainLoss } from "./text-model.ts";

/** Sizes that a compiled step is made for. */
export interface StepShape {
  readonly batch: number;
  readonly length: number;
  /** Positions that a loss is taken at. */
  readonly rows: number;
  readonly hasSegments: boolean;
}

/** The sizes of a batch: what its step is compiled for. */
export function stepShape(batch: Tensors): StepShape {
  const [size, length] = batch["input_ids"]!.shape as [number, number];
  const rows = batch["targets"]!.shape[0]!;
  return { batch: size, length, rows, hasSegments: "segments" in batch };
}

/** What trains, and how the backward pass uses memory. */
export interface TrainPlan extends StepPlan {
  readonly config: HfConfig;
  /** Whether a weight of the base trains in full. */
  readonly trainsWeight: (name: string) => boolean;
  /** Rows of an embedding or head that train, by module. */
  readonly tokenRows?: (module: string) => TokenRows | undefined;
  /** Trainable parameters in place of single uses of a weight, by its name in that use. */
  readonly replacements?: ReadonlyMap<string, string>;
  /** Rank of a bank of adapters: the graph gets the input `adapter_scales` (batch, rank), f32. Not for training. */
  readonly bankRank?: number;
}

/** One forward and backward pass: output `loss` (Σ weight · cross-entropy), a gradient for everything that trains. */
export function trainingGraph(plan: TrainPlan, shape: StepShape): Graph {
  return stepGraph(plan, (seed) => lossOf(plan, shape, seed));
}

/** The loss alone, without dropout. */
export function evaluationGraph(plan: TrainPlan, shape: StepShape): Graph {
  return { outputs: { loss: lossOf(plan, shape, undefined) }, gradients: {} };
}

/** Logits of every position, (B·T, V), or of each text's classes (B, labels). */
export function forwardGraph(
  plan: TrainPlan,
  { batch, length }: { batch: number; length: number },
): Graph {
  const [logits] = adaptedAll(plan, [plainLogits(plan.config, { batch, length })], { batch });
  return { outputs: { logits: logits! }, gradients: {} };
}

/** The mean of each text's last hidden states, (B, C), of an encoder. */
export function embeddingGraph(
  plan: TrainPlan,
  { batch, length }: { batch: number; length: number },
): Graph {
  const { mean } = encoderModel(plan.config, { batch, length });
  const [embeddings] = adaptedAll(plan, [mean], { batch });
  return { outputs: { embeddings: embeddings! }, gradients: {} };
}

/** Logits (B, V) after the positions `last_rows` (B) of new tokens, over a cache that they are appended to. */
export function decodeGraph(
  plan: TrainPlan,
  shape: { batch: number; length: number; cacheLength: number },
): Graph {
  const model = causalLM(plan.config, { ...shape, keepsCache: true });
  const last = gatherRows(model.hidden, input("last_rows", [shape.batch], "i64"));
  const fresh = Object.entries(model.present);
  const names = fresh.map(([name]) => name.replace("present.", "past_key_values."));
  const wanted = [model.head(last), ...fresh.map(([, rows]) => rows)];
  const roots = adaptedAll(plan, wanted, { batch: shape.batch });
  const caches = Object.fromEntries(names.map((name, i) => [name, roots[i + 1]!]));
  return { outputs: { logits: roots[0]! }, gradients: {}, caches };
}

/** Name and shape of everything that trains, in the order of execution. */
export function trainableParameters(plan: TrainPlan): Node[] {
  const shape: StepShape = { batch: 1, length: 1, rows: 1, hasSegments: false };
  return topological([lossOf(plan, shape, undefined)]).filter(isTrainable);
}

function lossOf(plan: TrainPlan, shape: StepShape, seed: Node | undefined): Node {
  const loss = plainLoss(plan.config, shape);
  return fuseLoss(adaptedAll(plan, [loss], { batch: shape.batch, seed }))[0]!;
}

/** `roots` with the plan's adapters in place and its whole weights made trainable. */
function adaptedAll(
  plan: TrainPlan,
  roots: readonly Node[],
  { batch, seed }: { batch: number; seed?: Node | undefined },
): Node[] {
  const rowScales = plan.bankRank && input("adapter_scales", [batch, plan.bankRank]);
  const inserted = insertLora(roots, plan.sites, {
    nameOf: peftKey,
    ...(seed && { seed }),
    ...(rowScales && { rowScales }),
  });
  const own = plan.tokenRows ? insertTokenRows(inserted, plan.tokenRows) : inserted;
  const { replacements } = plan;
  const split = replacements ? replaceWeights(own, (use) => replacements.get(use)) : own;
  return unfreeze(split, plan.trainsWeight);
}
