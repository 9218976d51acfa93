import type { Engine, WeightSource } from "../backends/backend.ts";
import { interpret } from "../backends/reference/interpret.ts";
import { LorikeetError } from "../errors.ts";
import { type Graph, rootsOf, topological } from "../ir/graph.ts";
import { isFrozen, isTrainable } from "../ops/leaf.ts";
import { Random } from "../tensor/random.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { trainingGraph, type TrainPlan } from "../train/plan.ts";

/** Relative difference (L2) of a gradient that a correct engine in f32 stays far below. */
const TOLERANCE = 1e-3;
const [BATCH, LENGTH, VOCABULARY] = [2, 8, 48];

const config = {
  ...{ model_type: "llama", hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, vocab_size: VOCABULARY },
  ...{ rms_norm_eps: 1e-5, rope_theta: 10000, tie_word_embeddings: true },
};
const targets = ["self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"];

/**
 * Compares loss and gradients of a tiny model on the engine that `make` gives with the float64 reference. GPU drivers
 * and execution providers may compute nonsense without any sign of it.
 * @throws LorikeetError `engine-self-test` when they differ, and what the engine throws
 */
export async function selfTest(
  make: (weights: WeightSource) => Engine,
  tolerance: number = TOLERANCE,
): Promise<void> {
  const graph = trainingGraph(tinyPlan(), {
    ...{ batch: BATCH, length: LENGTH, rows: BATCH * LENGTH, hasSegments: false },
  });
  const values = randomValues(graph);
  const engine = make(sourceOf(values));
  try {
    const got = await gradientsOf(engine, graph, values);
    const want = interpret(rootsOf(graph), (name) => values.get(name)!);
    for (const [i, name] of ["loss", ...Object.keys(graph.gradients)].entries())
      compare(`${engine.name}: ${name}`, {
        got: got.get(name)!.data as Float32Array,
        want: want[i]!.data,
        tolerance,
      });
  } finally {
    await engine.dispose();
  }
}

function tinyPlan(): TrainPlan {
  const modules = [0, 1].flatMap((layer) => targets.map((name) => `model.layers.${layer}.${name}`));
  const shared = { rank: 4, scale: 0.5, dropout: 0, useDora: false, loraBias: false };
  const sites = new Map(modules.map((module) => [module, { module, ...shared }]));
  return { config, sites, trainsWeight: () => false, checkpointing: false };
}

/** A value for every leaf: ids in order, uniform loss weights, everything else random. */
function randomValues(graph: Graph): Map<string, Tensor> {
  const random = new Random(7);
  const tokens = BATCH * LENGTH;
  const ids = (shape: Shape, f: (i: number) => number): Tensor =>
    tensor(
      "i64",
      shape,
      BigInt64Array.from({ length: tokens }, (_, i) => BigInt(f(i))),
    );
  const values = new Map<string, Tensor>([
    ["input_ids", ids([BATCH, LENGTH], (i) => (i * 7) % VOCABULARY)],
    ["position_ids", ids([BATCH, LENGTH], (i) => i % LENGTH)],
    ["loss_rows", ids([tokens], (i) => i)],
    ["targets", ids([tokens], (i) => (i * 5 + 1) % VOCABULARY)],
    ["loss_weights", tensor("f32", [tokens], new Float32Array(tokens).fill(1 / tokens))],
  ]);
  for (const { name, shape } of topological(rootsOf(graph))) {
    if (name === undefined || values.has(name)) continue;
    const data = Float32Array.from({ length: sizeOf(shape) }, () => random.normal() * 0.3);
    values.set(name, tensor("f32", shape, data));
  }
  return values;
}

function sourceOf(values: ReadonlyMap<string, Tensor>): WeightSource {
  return {
    names: [...values.keys()],
    get: (name) => ({ ...values.get(name)!, bytes: { kind: "memory", tensor: values.get(name)! } }),
    read: (name) => Promise.resolve(values.get(name)!),
  };
}

async function gradientsOf(
  engine: Engine,
  graph: Graph,
  values: ReadonlyMap<string, Tensor>,
): Promise<Map<string, Tensor>> {
  const leaves = topological(rootsOf(graph)).filter(({ name }) => name !== undefined);
  const trainable = leaves.filter(isTrainable);
  for (const { name } of trainable) await engine.set(name!, values.get(name!)!);
  const program = await engine.compile(graph);
  const inputs = leaves.filter((leaf) => !isFrozen(leaf) && !isTrainable(leaf));
  const feeds = Object.fromEntries(inputs.map(({ name }) => [name!, values.get(name!)!]));
  const { loss } = await program.run(feeds);
  const results = new Map([["loss", loss!]]);
  for (const { name } of trainable) results.set(name!, await engine.get(`${name!}.grad`));
  return results;
}

function compare(
  what: string,
  {
    got,
    want,
    tolerance,
  }: { readonly got: Float32Array; readonly want: Float64Array; readonly tolerance: number },
): void {
  let [error, square] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    square += want[i]! ** 2;
  }
  const difference = Math.sqrt(error / square);
  if (difference <= tolerance) return;
  throw new LorikeetError(
    "engine-self-test",
    `Expected the loss and gradients of a tiny model within ${tolerance} of the reference's, got ${difference.toPrecision(2)} (${what})`,
    { hint: "use --device cpu; update the GPU's driver" },
  );
}
