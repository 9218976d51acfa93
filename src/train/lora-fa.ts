import { type Dense, inverse, product } from "../adapter/linear-algebra.ts";
import type { LoraConfig } from "../adapter/lora-config.ts";
import type { AdamWStep } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import { toFloat64 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { Apply } from "./optimizer.ts";

/** A and B of a layer by the names of their parameters. */
interface Pair {
  readonly a: string;
  readonly b: string;
  readonly scale: number;
}

/** Added to the diagonal of A·Aᵀ. */
const DELTA = 1e-8;

/** Whether LoRA-FA holds the parameter `name` still: every A. */
export function isHeldByLoraFa(name: string): boolean {
  return name.endsWith(".lora_A.weight");
}

/**
 * LoRA-FA: A stays as it is, and B follows the gradient that brings B·A closest to a full fine-tuning step,
 * s⁻²·∂B·(A·Aᵀ + δ)⁻¹. Gradients are clipped before that.
 * https://arxiv.org/abs/2308.03303
 * @param parameters everything that trains
 * @param nameOf name of a tensor of a module's adapter
 */
export function loraFa(
  parameters: readonly Node[],
  sites: ReadonlyMap<string, LoraSite>,
  nameOf: (module: string, part: string) => string,
): Apply {
  const pairs = [...sites.values()].map(({ module, scale }): Pair => {
    const of = (part: string): string => nameOf(module, part);
    return { a: of("lora_A.weight"), b: of("lora_B.weight"), scale };
  });
  const learning = parameters.map(({ name }) => name!).filter((name) => !isHeldByLoraFa(name));
  // A never changes, so its inverse is found once
  const inverses = new Map<string, Dense>();
  return async (engine, update) => {
    const gradients = new Map<string, Tensor>();
    await engine.sumGradients?.();
    for (const name of learning) gradients.set(name, await engine.get(`${name}.grad`));
    const { lossScale = 1 } = update;
    const gradNorm = normOf(gradients.values()) / lossScale;
    if (!Number.isFinite(gradNorm)) return engine.applyGradients(update);
    const factor = Math.min(1, update.maxGradNorm / (gradNorm + 1e-6)) / lossScale;
    for (const pair of pairs) {
      const known = inverses.get(pair.a) ?? gramInverse(await engine.get(pair.a));
      inverses.set(pair.a, known);
      gradients.set(pair.b, projected(gradients.get(pair.b)!, known, pair.scale));
    }
    for (const [name, gradient] of gradients)
      await engine.set(`${name}.grad`, scaled(gradient, factor));
    await engine.applyGradients(plainUpdate(update));
    return { gradNorm };
  };
}

/** @throws LorikeetError `lora-config` for adapters that LoRA-FA is not defined for */
export function checkLoraFa(
  { useDora, loraBias }: LoraConfig,
  sites: ReadonlyMap<string, LoraSite>,
  layers: readonly LoraCandidate[],
): void {
  const other = layers.find(
    ({ module, kind }) => kind !== "linear" && sites.has(module) && !sites.get(module)!.isParameter,
  );
  const faults = [
    useDora ? "use_dora" : "",
    loraBias ? "lora_bias" : "",
    other ? `${other.module} (${other.kind}) as a target` : "",
  ].filter((fault) => fault !== "");
  if (faults.length === 0) return;
  throw new LorikeetError(
    "lora-config",
    `Expected adapters of A and B alone, of linear layers, with optim: lorafa; got ${faults.join(", ")}`,
    { hint: "Leave these out, or train with optim: adamw." },
  );
}

/** Clipped already; epsilon beside the plain second moment, and decay after the step, as in PEFT. */
function plainUpdate(update: AdamWStep): AdamWStep {
  const keep = 1 - update.learningRate * update.weightDecay;
  return {
    ...update,
    learningRate: update.learningRate * keep,
    weightDecay: update.weightDecay / keep,
    eps: update.eps / Math.sqrt(1 - update.betas[1] ** update.step),
    maxGradNorm: Infinity,
    lossScale: 1,
  };
}

function normOf(gradients: Iterable<Tensor>): number {
  let sum = 0;
  for (const { data } of gradients) for (const g of data as Float32Array) sum += g * g;
  return Math.sqrt(sum);
}

/** (A·Aᵀ + δ)⁻¹, (r, r), of A (r, in). */
function gramInverse(a: Tensor): Dense {
  const matrix = denseOf(a);
  const gram = product(matrix, matrix, { transB: true });
  const data = gram.data.map((value, i) => (i % (gram.rows + 1) === 0 ? value + DELTA : value));
  return inverse({ ...gram, data });
}

function projected(gradient: Tensor, gram: Dense, scale: number): Tensor {
  const { data } = product(denseOf(gradient), gram);
  return tensor(
    "f32",
    gradient.shape,
    Float32Array.from(data, (value) => value / scale ** 2),
  );
}

function scaled({ shape, data }: Tensor, factor: number): Tensor {
  return tensor(
    "f32",
    shape,
    Float32Array.from(data as Float32Array, (value) => value * factor),
  );
}

function denseOf(matrix: Tensor): Dense {
  const [rows, columns] = matrix.shape as [number, number];
  return { rows, columns, data: toFloat64(matrix) };
}
