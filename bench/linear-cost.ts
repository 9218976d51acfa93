/**
 * @file Time of a training step against tokens and against layers: Llama-shaped models of random weights, LoRA of rank 8
 * on all linear layers. Writes bench/results/linear-cost.md.
 *
 *   node --import ./scripts/typescript.js bench/linear-cost.ts [STEPS]
 */
import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg } from "node:os";
import { initialTensor } from "../src/adapter/init.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import { openEngine } from "../src/api/open-engine.ts";
import type { WeightSource } from "../src/backends/backend.ts";
import { topological } from "../src/ir/graph.ts";
import type { HfConfig } from "../src/models/config.ts";
import { loraTargets } from "../src/models/lora-targets.ts";
import { causalLM } from "../src/models/registry.ts";
import { isFrozen } from "../src/ops/leaf.ts";
import { loraCandidates } from "../src/passes/lora.ts";
import { Random } from "../src/tensor/random.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { trainableParameters, trainingGraph, type TrainPlan } from "../src/train/plan.ts";

/** Steps that are not counted. */
const WARM_UP = 2;
const VOCABULARY = 2048;
/** Sequences keep this length, so that attention costs the same for each token. */
const LENGTH = 128;

const steps = Number(process.argv[2] ?? 9);
const loads = [loadavg()[0]!];
const byTokens: Row[] = [];
for (const batch of [2, 4, 8, 16])
  byTokens.push({ size: batch * LENGTH, ...(await measure({ layers: 4, batch, length: LENGTH })) });
const byLayers: Row[] = [];
for (const layers of [2, 4, 8, 16])
  byLayers.push({ size: layers, ...(await measure({ layers, batch: 4, length: LENGTH })) });
const byLength: Row[] = [];
for (const length of [128, 256, 512, 1024])
  byLength.push({ size: length, ...(await measure({ layers: 4, batch: 1, length })) });
loads.push(loadavg()[0]!);

await mkdir("bench/results", { recursive: true });
await writeFile(
  "bench/results/linear-cost.md",
  `# Cost of a training step against tokens and layers

Llama-shaped models of random weights (256 features, 8 heads, 4 key heads, 704 in the feed-forward layer, vocabulary
${VOCABULARY}), f32, LoRA of rank 8 on all linear layers, loss on every token. Medians of ${steps} steps after ${WARM_UP}; in
brackets the fastest and the slowest. ${cpus()[0]!.model}, ${availableParallelism()} threads; processes that wanted to run: ${loads[0]!.toFixed(1)} at the
start, ${loads[1]!.toFixed(1)} at the end. Again: \`node --import ./scripts/typescript.js bench/linear-cost.ts\`.

## Tokens: more rows of ${LENGTH} tokens, 4 layers

${table("tokens", byTokens)}

## Layers: 4 rows of ${LENGTH} tokens

${table("layers", byLayers)}

## Longer rows: one row, 4 layers

Attention sees every earlier token, so its share grows with the length.

${table("tokens", byLength)}
`,
);

interface Timing {
  readonly median: number;
  readonly fastest: number;
  readonly slowest: number;
}

interface Row extends Timing {
  readonly size: number;
}

async function measure(shape: { layers: number; batch: number; length: number }): Promise<Timing> {
  const { batch, length } = shape;
  const config = configOf(shape.layers);
  const model = causalLM(config, { batch: 1, length: 1 });
  const root = model.head(model.hidden);
  const adapter = lora({ r: 8, alpha: 16, targetModules: "all-linear" });
  const plan: TrainPlan = {
    config,
    sites: resolveTargets(adapter, loraCandidates([root]), loraTargets("llama")),
    trainsWeight: () => false,
    checkpointing: false,
  };
  const engine = await openEngine(randomWeights(topological([root]).filter(isFrozen)));
  for (const { name, shape: dims } of trainableParameters(plan))
    await engine.set(name!, initialTensor(adapter, name!, dims, 0));
  const random = new Random(1).fork("tokens");
  const token = (): number => Math.floor(random.uniform() * VOCABULARY);
  const ids = Array.from({ length: batch }, () => Array.from({ length }, token));
  const feeds = lossFeeds(ids, ids);
  const rows = feeds["targets"]!.shape[0]!;
  const program = await engine.compile(trainingGraph(plan, { batch, length, rows, hasSegments: false })); // prettier-ignore
  const times: number[] = [];
  for (let step = 1; step <= WARM_UP + steps; step++) {
    const began = performance.now();
    await program.run(feeds);
    await engine.applyGradients({ step, learningRate: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }); // prettier-ignore
    if (step > WARM_UP) times.push(performance.now() - began);
  }
  await engine.dispose();
  times.sort((a, b) => a - b);
  return { median: times[times.length >> 1]!, fastest: times[0]!, slowest: times.at(-1)! };
}

function configOf(layers: number): HfConfig {
  return {
    model_type: "llama",
    hidden_size: 256,
    intermediate_size: 704,
    num_hidden_layers: layers,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    vocab_size: VOCABULARY,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: true,
  };
}

function randomWeights(
  leaves: readonly { name?: string; shape: readonly number[] }[],
): WeightSource {
  const tensors = new Map<string, Tensor>();
  for (const { name, shape } of leaves) {
    const random = new Random(0).fork(name!);
    const draw = shape.length === 1 ? () => 1 : () => 0.02 * random.normal();
    tensors.set(name!, tensor("f32", shape, Float32Array.from({ length: sizeOf(shape) }, draw)));
  }
  const find = (name: string): Tensor => tensors.get(name)!;
  return {
    names: [...tensors.keys()],
    get(name) {
      const { dtype, shape } = find(name);
      return { dtype, shape, bytes: { kind: "memory", tensor: find(name) } };
    },
    read: (name) => Promise.resolve(find(name)),
  };
}

/** Times beside what the smallest size would predict, and the straight line through all of them. */
function table(unit: string, rows: readonly Row[]): string {
  const first = rows[0]!;
  const { intercept, slope, share } = line(rows);
  const ms = (value: number): string => (value < 100 ? value.toFixed(1) : value.toFixed(0));
  const lines = rows.map(
    ({ size, median, fastest, slowest }) =>
      `| ${size} | ${ms(median)} (${ms(fastest)}–${ms(slowest)}) | ${(median / size).toFixed(3)} | ${(size / first.size).toFixed(0)}× | ${(median / first.median).toFixed(2)}× |`,
  );
  const singular = unit.replace(/s$/, "");
  return `| ${unit} | ms a step | ms a ${singular} | size | time |
| --- | --- | --- | --- | --- |
${lines.join("\n")}

Straight line: ${ms(intercept)} ms + ${slope.toFixed(3)} ms · ${unit}; it explains ${(100 * share).toFixed(1)} % of the variance.`;
}

function line(rows: readonly Row[]): { intercept: number; slope: number; share: number } {
  const meanOf = (values: readonly number[]): number =>
    values.reduce((a, b) => a + b, 0) / values.length;
  const [x, y] = [rows.map(({ size }) => size), rows.map(({ median }) => median)];
  const [meanX, meanY] = [meanOf(x), meanOf(y)];
  const squares = (values: readonly number[], mean: number): number => values.reduce((sum, value) => sum + (value - mean) ** 2, 0); // prettier-ignore
  const products = x.reduce((sum, value, i) => sum + (value - meanX) * (y[i]! - meanY), 0);
  const slope = products / squares(x, meanX);
  return {
    slope,
    intercept: meanY - slope * meanX,
    share: products ** 2 / (squares(x, meanX) * squares(y, meanY)),
  };
}
