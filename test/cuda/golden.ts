/** @file PEFT's golden values on the GPU: logits, loss, every gradient, ten AdamW steps; in float32 and bfloat16. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Adapter, decodeAdapter, peftKey } from "../../src/adapter/adapter.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { cudaEngine } from "../../src/backends/cuda/engine.ts";
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

/** Relative errors allowed: logits and gradients, and the distance of the ten losses. */
const LIMITS: Readonly<Record<Precision, { logits: number; gradient: number; loss: number }>> = {
  f32: { logits: 1e-5, gradient: 1e-4, loss: 2e-5 },
  bf16: { logits: 2e-2, gradient: 4e-2, loss: 2e-2 },
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

function feedsOf(ids: Tensor): Record<string, Tensor> {
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
    loss_weights: tensor("f32", [rows.length], new Float32Array(rows.length).fill(1 / rows.length)),
  };
}

/** What quantizing the base to so many bits does to this small model. */
const QUANTIZED = {
  nf4: { logits: 0.35, gradient: 0.8, loss: 0.35 },
  int8: { logits: 5e-2, gradient: 0.15, loss: 5e-2 },
} as const;

async function checkGolden(
  name: string,
  precision: Precision,
  options: { isCheckpointed?: boolean; quantization?: Quantization } = {},
): Promise<string> {
  const { isCheckpointed = false, quantization } = options;
  const limits = quantization ? QUANTIZED[quantization] : LIMITS[precision];
  const folder = join(root, "test/golden", name);
  const read = async (part: string): Promise<Adapter> =>
    decodeAdapter(
      await readFile(join(folder, part, "adapter_config.json"), "utf8"),
      await readFile(join(folder, part, "adapter_model.safetensors")),
    );
  const [adapter, after] = [await read("adapter"), await read("adapter_after10")];
  const want = (await decodeSafetensors(await readFile(join(folder, "golden.safetensors"))))
    .tensors;
  const { config, source } = await storyteller();
  const { logits, loss } = build(config, adapter);
  const parameters = topological([loss]).filter(isTrainable);
  const result = gradient(loss, parameters);
  const gradients = isCheckpointed ? checkpoint(result.loss, result.gradients) : result.gradients;
  const engine = cudaEngine(source, { precision, ...(quantization && { quantization }) });
  for (const [key, value] of adapter.tensors) await engine.set(key, value);
  const outputs = { loss: result.loss, logits };
  const program = await engine.compile({
    outputs,
    gradients: Object.fromEntries(parameters.map((node, i) => [node.name!, gradients[i]!])),
  });
  const feeds = feedsOf(want.get("input_ids")!);
  const reports: string[] = [];
  const losses: number[] = [];
  for (let step = 1; step <= 10; step++) {
    const values = await program.run(feeds);
    losses.push(Number(values["loss"]!.data[0]));
    if (step === 1) {
      const tokens = [...want.get("logit_tokens")!.data].map(Number);
      const V = logits.shape[1]!;
      const picked = Float64Array.from({ length: B * T * tokens.length }, (_, i) =>
        Number(
          values["logits"]!.data[Math.floor(i / tokens.length) * V + tokens[i % tokens.length]!]!,
        ),
      );
      reports.push(
        expectClose(
          "logits",
          tensor("f64", [picked.length], picked),
          toFloat64(want.get("adapter_logits")!),
          limits.logits,
        ),
      );
      let worst = 0;
      for (const { name: key } of parameters) {
        const got = await engine.get(`${key!}.grad`);
        const find = (kind: string): Tensor | undefined =>
          want.get(`${kind}.${key!}`) ?? want.get(`${kind}.${key!}.weight`);
        const known = find("grad");
        const norm = Number(find("grad_norm")!.data[0]);
        const error = known
          ? relativeError(toFloat64(got), toFloat64(known))
          : Math.abs(Math.hypot(...toFloat64(got)) - norm) / norm;
        if (!(error <= limits.gradient))
          throw new Error(
            `gradient of ${key!}: expected a relative error of at most ${limits.gradient}, got ${error}`,
          );
        worst = Math.max(worst, error);
      }
      reports.push(`gradients ${worst.toExponential(1)}`);
    }
    await engine.applyGradients({
      step,
      learningRate: 1e-3,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weightDecay: 0.01,
      maxGradNorm: Infinity,
    });
  }
  const known = toFloat64(want.get("losses10")!);
  const furthest = Math.max(...losses.map((value, i) => Math.abs(value - known[i]!)));
  if (!(furthest <= limits.loss))
    throw new Error(
      `ten losses: expected at most ${limits.loss} from PEFT's, got ${furthest}: ${losses.join(" ")}`,
    );
  reports.push(`losses ${furthest.toExponential(1)}`);
  if (precision === "f32") {
    let worst = 0;
    for (const [key, value] of after.tensors)
      worst = Math.max(worst, relativeError(toFloat64(await engine.get(key)), toFloat64(value)));
    // AdamW divides by the root of tiny second moments: errors of 1e-5 in gradients grow to 1e-3 in weights
    if (!(worst <= 5e-3)) throw new Error(`adapter after ten steps: relative error ${worst}`);
    reports.push(`weights after 10 ${worst.toExponential(1)}`);
  }
  await program.dispose();
  await engine.dispose();
  return reports.join(", ");
}

const CASES = ["lora", "rslora", "patterns", "layers", "dora"] as const;

/** One check for each golden case and precision, and for what changes how they are computed. */
export const checks: readonly Check[] = [
  ...(["f32", "bf16"] as const).flatMap((precision) =>
    CASES.map((name) => ({
      name: `golden ${name} ${precision}`,
      run: () => checkGolden(name, precision),
    })),
  ),
  ...(["f32", "bf16"] as const).map((precision) => ({
    name: `golden lora ${precision} checkpointed`,
    run: () => checkGolden("lora", precision, { isCheckpointed: true }),
  })),
  ...(["nf4", "int8"] as const).map((quantization) => ({
    name: `golden lora bf16 ${quantization} checkpointed`,
    run: () => checkGolden("lora", "bf16", { isCheckpointed: true, quantization }),
  })),
];
