/**
 * @file One LoRA training step on the GPU with random weights: `train-step-cuda <preset> [options]`.
 * Prints one JSON line with milliseconds a step, tokens/s, memory and, with `--profile`, where the time goes; with
 * `--peer=python3` (and `--eager`) another for PEFT on the same machine, and how many times faster we are. Options:
 * `--batch=N --seq=N --rank=N --steps=N --layers=N --checkpointing --quantization=nf4|int8 --deterministic --weights=FILE`.
 */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { WeightSource } from "../src/backends/backend.ts";
import { type CudaEngine, cudaEngine } from "../src/backends/cuda/engine.ts";
import { topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import { causalLM } from "../src/models/registry.ts";
import { gatherRows } from "../src/ops/gather-rows.ts";
import { input, isTrainable } from "../src/ops/leaf.ts";
import { linearCrossEntropy } from "../src/ops/linear-cross-entropy.ts";
import { checkpoint } from "../src/passes/checkpoint.ts";
import { gradient } from "../src/passes/gradient.ts";
import { insertLora, loraCandidates } from "../src/passes/lora.ts";
import { Random } from "../src/tensor/random.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { toBf16 } from "../src/tensor/convert.ts";

interface Preset {
  readonly batch: number;
  readonly length: number;
  readonly config: Readonly<Record<string, number | boolean>>;
}

const presets: Readonly<Record<string, Preset>> = {
  "smollm2-135m": {
    batch: 8,
    length: 1024,
    config: {
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      vocab_size: 49152,
      tie_word_embeddings: true,
    },
  },
  "llama3.2-1b": {
    batch: 4,
    length: 2048,
    config: {
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 16,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      head_dim: 64,
      vocab_size: 128256,
      tie_word_embeddings: true,
    },
  },
  "llama3.1-8b": {
    batch: 2,
    length: 2048,
    config: {
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      vocab_size: 128256,
      tie_word_embeddings: false,
    },
  },
};

const [name = "llama3.2-1b", ...flags] = process.argv.slice(2);
const option = (key: string, fallback: number): number =>
  Number(flags.find((flag) => flag.startsWith(`--${key}=`))?.split("=")[1] ?? fallback);
const preset = presets[name];
if (!preset)
  throw new Error(`Expected a preset of ${Object.keys(presets).join(", ")}, got ${name}`);
const batch = option("batch", preset.batch);
const length = option("seq", preset.length);
const rank = option("rank", 16);
const steps = option("steps", 10);
const isCheckpointed = flags.includes("--checkpointing");
const quantization = (["nf4", "int8"] as const).find((kind) =>
  flags.includes(`--quantization=${kind}`),
);
const tokens = batch * length;
const config = {
  model_type: "llama",
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  max_position_embeddings: 8192,
  ...preset.config,
  num_hidden_layers: option("layers", Number(preset.config["num_hidden_layers"])),
};

/** Where weights are read from, as a run reads a checkpoint: `--weights=FILE`, made on the first use. */
const weightsFile = flags.find((flag) => flag.startsWith("--weights="))?.slice("--weights=".length);

/** The same weights one after another in a file. Returns undefined after writing it: measure in a fresh process. */
function fileWeights(
  path: string,
  shapes: ReadonlyMap<string, readonly number[]>,
): WeightSource | undefined {
  const memory = randomWeights(shapes);
  if (!existsSync(path)) {
    const file = openSync(path, "w");
    for (const key of memory.names)
      writeSync(file, randomWeight(shapes.get(key)!).data as Uint16Array);
    closeSync(file);
    return undefined;
  }
  const places = new Map<string, { offset: number; length: number }>();
  let offset = 0;
  for (const [key, shape] of shapes) {
    places.set(key, { offset, length: sizeOf(shape) * 2 });
    offset += sizeOf(shape) * 2;
  }
  return {
    ...memory,
    get: (key) => ({
      dtype: "bf16",
      shape: shapes.get(key)!,
      bytes: { kind: "file", path, ...places.get(key)! },
    }),
  };
}

/** Weights N(0, 0.02) that repeat one block of random numbers. */
function randomWeights(shapes: ReadonlyMap<string, readonly number[]>): WeightSource {
  return {
    names: [...shapes.keys()],
    get: (key) => ({ dtype: "bf16", shape: shapes.get(key)!, bytes: { kind: "computed" } }),
    read: (key) => Promise.resolve(randomWeight(shapes.get(key)!)),
  };
}

function randomWeight(shape: readonly number[]): Tensor {
  const values = randomBlock();
  const data = new Uint16Array(sizeOf(shape));
  if (shape.length < 2) return tensor("bf16", shape, data.fill(toBf16(1)));
  for (let at = 0; at < data.length; at += values.length)
    data.set(values.subarray(0, Math.min(values.length, data.length - at)), at);
  return tensor("bf16", shape, data);
}

let block: Uint16Array | undefined;

function randomBlock(): Uint16Array {
  const random = new Random(1);
  block ??= Uint16Array.from({ length: 1 << 22 }, () => toBf16(0.02 * random.normal()));
  return block;
}

function buildGraph(): {
  loss: Node;
  parameters: Node[];
  gradients: Node[];
  frozen: Map<string, readonly number[]>;
} {
  const model = causalLM(config, { batch, length });
  const plain = model.head(model.hidden);
  const candidates = loraCandidates([plain]).filter(
    ({ kind, module }) => kind === "linear" && module !== "lm_head",
  );
  const sites = new Map(
    candidates.map(({ module }) => [
      module,
      { module, rank, scale: 2, dropout: 0, useDora: false, loraBias: false },
    ]),
  );
  const rows = gatherRows(model.hidden, input("loss_rows", [tokens], "i64"));
  const head = plain.inputs.find(({ op }) => op.name === "parameter")!;
  const bare = linearCrossEntropy(
    rows,
    head,
    input("targets", [tokens], "i64"),
    input("loss_weights", [tokens]),
  );
  const [adapted] = insertLora([bare], sites, {
    nameOf: (module, part) => `${module}.${part}`,
  }) as [Node];
  const parameters = topological([adapted]).filter(isTrainable);
  const result = gradient(adapted, parameters);
  const gradients = isCheckpointed ? checkpoint(result.loss, result.gradients) : result.gradients;
  const frozen = new Map(
    topological([result.loss])
      .filter((node) => node.op.name === "parameter" && !isTrainable(node))
      .map((node) => [node.name!, node.shape]),
  );
  return { loss: result.loss, parameters, gradients, frozen };
}

function feeds(vocabulary: number): Record<string, Tensor> {
  const random = new Random(2);
  const ints = (shape: number[], f: (i: number) => number): Tensor =>
    tensor(
      "i32",
      shape,
      Int32Array.from({ length: sizeOf(shape) }, (_, i) => f(i)),
    );
  return {
    input_ids: ints([batch, length], () => random.integer(vocabulary)),
    position_ids: ints([batch, length], (i) => i % length),
    loss_rows: ints([tokens], (i) => i),
    targets: ints([tokens], () => random.integer(vocabulary)),
    loss_weights: tensor("f32", [tokens], new Float32Array(tokens).fill(1 / tokens)),
  };
}

/** Time of each kind of unit, largest first. */
function table(
  profile: readonly {
    readonly name: string;
    readonly count: number;
    readonly milliseconds: number;
  }[],
): Record<string, string> {
  const sorted = [...profile].sort((a, b) => b.milliseconds - a.milliseconds);
  return Object.fromEntries(
    sorted.map(({ name: unit, count, milliseconds }) => [
      unit,
      `${milliseconds.toFixed(2)} ms in ${count}`,
    ]),
  );
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

const start = performance.now();
const { loss, parameters, gradients, frozen } = buildGraph();
const built = performance.now();
const source = weightsFile === undefined ? randomWeights(frozen) : fileWeights(weightsFile, frozen);
if (!source) process.exit(0);
const engine: CudaEngine = cudaEngine(source, {
  deterministic: flags.includes("--deterministic"),
  ...(quantization && { quantization }),
});
const free = engine.device.free();
const random = new Random(3);
for (const { name: key, shape } of parameters) {
  const deviation = key!.includes("lora_A") ? 0.02 : 0;
  await engine.set(
    key!,
    tensor(
      "f32",
      shape,
      Float32Array.from({ length: sizeOf(shape) }, () => deviation * random.normal()),
    ),
  );
}
const program = await engine.compile({
  outputs: { loss },
  gradients: Object.fromEntries(parameters.map((node, i) => [node.name!, gradients[i]!])),
});
const compiled = performance.now();
const fed = feeds(Number(preset.config["vocab_size"]));
const losses: number[] = [];
const walls: number[] = [];
let firstStep = 0;
for (let step = 1; step <= steps + 3; step++) {
  const from = performance.now();
  const results = await program.run(fed);
  await engine.applyGradients({
    step,
    learningRate: 1e-4,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weightDecay: 0.01,
    maxGradNorm: 1,
  });
  walls.push(performance.now() - from);
  firstStep ||= performance.now();
  losses.push(Number(results["loss"]!.data[0]));
}
const ms = median(walls.slice(3));
const gpu = median(Array.from({ length: 3 }, () => program.time()));
await engine.clearGradients();
const profile = flags.includes("--profile") ? table(program.profile()) : undefined;
const used = (free - engine.device.free()) / 2 ** 30;
console.log(
  JSON.stringify({
    engine: "lorikeet",
    device: engine.device.info.name,
    model: name,
    layers: config.num_hidden_layers,
    batch,
    length,
    rank,
    checkpointing: isCheckpointed,
    base: quantization ?? "bf16",
    ms: Number(ms.toFixed(2)),
    gpuMs: Number(gpu.toFixed(2)),
    tokensPerSecond: Math.round(tokens / (ms / 1000)),
    usedGiB: Number(used.toFixed(2)),
    arenaGiB: Number((program.arenaBytes / 2 ** 30).toFixed(2)),
    weightsGiB: Number((engine.memory().weights / 2 ** 30).toFixed(2)),
    graphMs: Math.round(built - start),
    firstStepMs: Math.round(firstStep),
    compileMs: Math.round(compiled - built),
    losses: losses.map((value) => Number(value.toFixed(4))),
    ...(profile && { profile }),
  }),
);

const peer = flags.find((flag) => flag.startsWith("--peer="))?.slice("--peer=".length);
if (peer !== undefined) {
  await program.dispose();
  await engine.dispose();
  const script = fileURLToPath(new URL("./peer/peft_train.py", import.meta.url));
  const common = [
    script,
    "--device",
    "cuda",
    "--model",
    name,
    "--batch",
    String(batch),
    "--seq",
    String(length),
    "--rank",
    String(rank),
  ];
  const shared = [...common, ...(isCheckpointed ? ["--checkpointing"] : [])];
  for (const extra of flags.includes("--eager") ? [[], ["--compile"]] : [["--compile"]]) {
    const { stdout, stderr } = spawnSync(peer, [...shared, ...extra], { encoding: "utf8" });
    const line = stdout.trim().split("\n").at(-1) ?? "";
    if (!line.startsWith("{")) {
      console.log(`peer failed: ${stderr.slice(-600)}`);
      continue;
    }
    const result = JSON.parse(line) as { ms: number; peak_gib: number; compile: boolean };
    console.log(JSON.stringify({ ...result, ratio: Number((result.ms / ms).toFixed(2)) }));
  }
}
