/** @file PEFT's golden values on the GPU: logits, loss, every gradient, ten AdamW steps; in float32 and bfloat16. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Adapter, decodeAdapter, peftKey } from "../../src/adapter/adapter.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { type CudaEngine, cudaEngine } from "../../src/backends/cuda/engine.ts";
import type { CudaProgram } from "../../src/backends/cuda/program.ts";
import type { Quantization } from "../../src/backends/cuda/quantize.ts";
import type { Precision } from "../../src/backends/cuda/plan/graph.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import { topological } from "../../src/ir/graph.ts";
import type { Node } from "../../src/ir/node.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { causalLM } from "../../src/models/registry.ts";
import { gatherRows } from "../../src/ops/gather-rows.ts";
import { input, isTrainable } from "../../src/ops/leaf.ts";
import { linearCrossEntropy } from "../../src/ops/linear-cross-entropy.ts";
import { checkpoint } from "../../src/passes/checkpoint.ts";
import { gradient } from "../../src/passes/gradient.ts";
import { insertLora, loraCandidates } from "../../src/passes/lora.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { type Check, expectClose, relativeError, root, storyteller } from "./check.ts";

const [B, T] = [2, 40];

/**
 * Relative errors allowed: logits and gradients, and the distance of the ten losses. PEFT's own gradients in bf16 are up to
 * 4.4e-2 from its f32 ones on these cases (test/golden/bf16_gradients.py).
 */
const LIMITS: Readonly<Record<Precision, { logits: number; gradient: number; loss: number }>> = {
  f32: { logits: 1e-5, gradient: 1e-4, loss: 2e-5 },
  bf16: { logits: 2e-2, gradient: 5e-2, loss: 2e-2 },
  f16: { logits: 4e-3, gradient: 1e-2, loss: 3e-3 },
};

function build(config: HfConfig, adapter: Adapter): { logits: Node; loss: Node } {
  const model = causalLM(config, { batch: B, length: T });
  const plain = model.head(model.hidden);
  const candidates = loraCandidates([plain]);
  const sites = resolveTargets(adapter.config, candidates, { defaults: [], head: "lm_head" });
  const R = B * (T - 1);
  const rows = gatherRows(model.hidden, input("loss_rows", [R], "i64"));
  const head = plain.inputs.find((each) => each.op.name === "parameter")!;
  const loss = linearCrossEntropy(
    rows,
    head,
    input("targets", [R], "i64"),
    input("loss_weights", [R]),
  );
  const [logits, adapted] = insertLora([plain, loss], sites, { nameOf: peftKey }) as [Node, Node];
  return { logits, loss: adapted };
}

function feedsOf(ids: Tensor, lossScale: number): Record<string, Tensor> {
  const rows = Array.from({ length: B * T }, (_, i) => i).filter((i) => i % T < T - 1);
  const wholes = (shape: number[], values: number[]): Tensor =>
    tensor("i32", shape, Int32Array.from(values));
  return {
    input_ids: ids,
    position_ids: wholes(
      [B, T],
      Array.from({ length: B * T }, (_, i) => i % T),
    ),
    loss_rows: wholes([rows.length], rows),
    targets: wholes(
      [rows.length],
      rows.map((i) => Number(ids.data[i + 1])),
    ),
    loss_weights: tensor(
      "f32",
      [rows.length],
      new Float32Array(rows.length).fill(lossScale / rows.length),
    ),
  };
}

interface Options {
  readonly isCheckpointed?: boolean;
  readonly deterministic?: boolean;
  readonly quantization?: Quantization;
}

/** What quantizing the base to so many bits does to this small model. */
const QUANTIZED = {
  nf4: { logits: 0.35, gradient: 0.8, loss: 0.35 },
  int8: { logits: 5e-2, gradient: 0.15, loss: 5e-2 },
  fp8: { logits: 5e-2, gradient: 0.3, loss: 5e-2 },
} as const;

/** The golden case `name`: adapters before and after ten steps, and the values that go with them. */
async function readCase(
  name: string,
): Promise<{ adapter: Adapter; after: Adapter; want: ReadonlyMap<string, Tensor> }> {
  const folder = join(root, "test/golden", name);
  const read = async (part: string): Promise<Adapter> =>
    decodeAdapter(
      await readFile(join(folder, part, "adapter_config.json"), "utf8"),
      await readFile(join(folder, part, "adapter_model.safetensors")),
    );
  const { tensors } = await decodeSafetensors(await readFile(join(folder, "golden.safetensors")));
  return {
    adapter: await read("adapter"),
    after: await read("adapter_after10"),
    want: tensors,
  };
}

interface Session {
  readonly engine: CudaEngine;
  readonly program: CudaProgram;
  readonly parameters: readonly Node[];
  readonly vocabulary: number;
}

async function openSession(
  adapter: Adapter,
  precision: Precision,
  { isCheckpointed = false, deterministic = false, quantization }: Options,
): Promise<Session> {
  const { config, source } = await storyteller();
  const { logits, loss } = build(config, adapter);
  const parameters = topological([loss]).filter(isTrainable);
  const result = gradient(loss, parameters);
  const gradients = isCheckpointed ? checkpoint(result.loss, result.gradients) : result.gradients;
  const options = { precision, deterministic, ...(quantization && { quantization }) };
  const engine = cudaEngine(source, options);
  for (const [key, value] of adapter.tensors) await engine.set(key, value);
  const program = await engine.compile({
    outputs: { loss: result.loss, logits },
    gradients: Object.fromEntries(parameters.map((node, i) => [node.name!, gradients[i]!])),
  });
  return { engine, program, parameters, vocabulary: logits.shape[1]! };
}

function checkLogits(
  logits: Tensor,
  want: ReadonlyMap<string, Tensor>,
  vocabulary: number,
  limit: number,
): string {
  const tokens = [...want.get("logit_tokens")!.data].map(Number);
  const picked = Float64Array.from({ length: B * T * tokens.length }, (_, i) =>
    Number(logits.data[Math.floor(i / tokens.length) * vocabulary + tokens[i % tokens.length]!]!),
  );
  const got = tensor("f64", [picked.length], picked);
  return expectClose("logits", got, toFloat64(want.get("adapter_logits")!), limit);
}

/** Relative error of every gradient; throws naming all that are beyond `limit`, largest first. */
async function checkGradients(
  { engine, parameters }: Session,
  want: ReadonlyMap<string, Tensor>,
  limit: number,
): Promise<string> {
  const errors: { key: string; error: number }[] = [];
  for (const { name } of parameters) {
    const key = name!;
    const got = toFloat64(await engine.get(`${key}.grad`)).map((x) => x / (engine.lossScale ?? 1));
    const find = (kind: string): Tensor | undefined =>
      want.get(`${kind}.${key}`) ?? want.get(`${kind}.${key}.weight`);
    const known = find("grad");
    const norm = Number(find("grad_norm")!.data[0]);
    const error = known
      ? relativeError(got, toFloat64(known))
      : Math.abs(Math.hypot(...got) - norm) / norm;
    errors.push({ key, error });
  }
  const sorted = errors.sort((a, b) => b.error - a.error);
  const wrong = sorted.filter(({ error }) => !(error <= limit));
  if (wrong.length > 0)
    throw new Error(
      `expected gradients within ${limit}, got ${wrong.map(({ key, error }) => `${key} ${error.toExponential(2)}`).join(", ")}`,
    );
  return `gradients ${sorted[0]!.error.toExponential(1)} (${sorted[0]!.key})`;
}

function checkLosses(
  losses: readonly number[],
  want: ReadonlyMap<string, Tensor>,
  limit: number,
): string {
  const known = toFloat64(want.get("losses10")!);
  const furthest = Math.max(...losses.map((value, i) => Math.abs(value - known[i]!)));
  if (!(furthest <= limit))
    throw new Error(
      `ten losses: expected at most ${limit} from PEFT's, got ${furthest}: ${losses.join(" ")}`,
    );
  return `losses ${furthest.toExponential(1)}`;
}

/** AdamW divides by the root of tiny second moments: errors of 1e-5 in gradients grow to 1e-3 in weights. */
async function checkWeights({ engine }: Session, after: Adapter): Promise<string> {
  let worst = 0;
  for (const [key, value] of after.tensors)
    worst = Math.max(worst, relativeError(toFloat64(await engine.get(key)), toFloat64(value)));
  if (!(worst <= 5e-3)) throw new Error(`adapter after ten steps: relative error ${worst}`);
  return `weights after 10 ${worst.toExponential(1)}`;
}

async function checkGolden(
  name: string,
  precision: Precision,
  options: Options = {},
): Promise<string> {
  const limits = options.quantization ? QUANTIZED[options.quantization] : LIMITS[precision];
  const { adapter, after, want } = await readCase(name);
  const session = await openSession(adapter, precision, options);
  const { engine, program, vocabulary } = session;
  const { lossScale = 1 } = engine;
  const feeds = feedsOf(want.get("input_ids")!, lossScale);
  const reports: string[] = [];
  const losses: number[] = [];
  try {
    for (let step = 1; step <= 10; step++) {
      const values = await program.run(feeds);
      losses.push(Number(values["loss"]!.data[0]) / lossScale);
      if (step === 1)
        reports.push(
          checkLogits(values["logits"]!, want, vocabulary, limits.logits),
          await checkGradients(session, want, limits.gradient),
        );
      await engine.applyGradients({ ...OPTIMIZER, step, lossScale });
    }
    reports.push(checkLosses(losses, want, limits.loss));
    if (precision === "f32") reports.push(await checkWeights(session, after));
    return reports.join(", ");
  } finally {
    await program.dispose();
    await engine.dispose();
  }
}

const OPTIMIZER = {
  learningRate: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0.01,
  maxGradNorm: Infinity,
} as const;

const CASES = ["lora", "rslora", "patterns", "layers", "dora"] as const;

/** One check for each golden case and precision, and for what changes how they are computed. */
export const checks: readonly Check[] = [
  ...(["f32", "bf16"] as const).flatMap((precision) =>
    CASES.map((name) => ({
      name: `golden ${name} ${precision}`,
      run: () => checkGolden(name, precision),
    })),
  ),
  { name: "golden lora f16", run: () => checkGolden("lora", "f16") },
  ...(["f32", "bf16"] as const).map((precision) => ({
    name: `golden lora ${precision} checkpointed`,
    run: () => checkGolden("lora", precision, { isCheckpointed: true }),
  })),
  {
    name: "golden lora bf16 deterministic",
    run: () => checkGolden("lora", "bf16", { deterministic: true }),
  },
  { name: "golden lora bf16 fp8", run: () => checkGolden("lora", "bf16", { quantization: "fp8" }) },
  ...(["nf4", "int8"] as const).map((quantization) => ({
    name: `golden lora bf16 ${quantization} checkpointed`,
    run: () => checkGolden("lora", "bf16", { isCheckpointed: true, quantization }),
  })),
];
