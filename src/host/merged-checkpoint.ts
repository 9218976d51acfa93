import type { Adapter } from "../adapter/adapter.ts";
import { type MergeBase, type MergedWeight, planMerge } from "../adapter/merge.ts";
import { changesBase } from "../adapter/init/initial-part.ts";
import { mergeWeight } from "../adapter/merge-steps.ts";
import type { Weight, WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import { convert } from "../tensor/convert.ts";
import { type DType, isFloat } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { openGguf } from "./checkpoint-gguf.ts";
import type { Checkpoint } from "./open-checkpoint.ts";

/** How a base and an adapter become one model. */
export interface MergeOptions {
  /** Element type of the merged weights; by default each keeps the base's. */
  readonly dtype?: DType;
  /** Refuse merged weights that are not finite; default true. */
  readonly safe?: boolean;
  /** Merge into a quantized base all the same. */
  readonly requantize?: boolean;
}

/** A merged model that computes each weight when it is read. */
export interface MergedCheckpoint extends Checkpoint {
  /** Names of the weights that differ from the base's. */
  readonly changed: readonly string[];
  /** Embedding and head were one matrix in the base and are two now. */
  readonly unties: boolean;
}

const TORCH_NAMES: Partial<Record<DType, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" }; // prettier-ignore

/**
 * `checkpoint` with `adapter` merged into its weights; nothing is read before a weight is asked for.
 * @throws LorikeetError `quantized-base` unless `requantize`; `cannot-merge`, `adapter-mismatch`; reading a weight
 * throws `not-finite` when its merged values are not
 */
export async function mergedCheckpoint(
  checkpoint: Checkpoint,
  adapter: Adapter,
  { layers, head }: Pick<MergeBase, "layers" | "head">,
  options: MergeOptions = {},
): Promise<MergedCheckpoint> {
  refuseMovedBase(adapter);
  if (!options.requantize) await refuseQuantized(checkpoint);
  const { weights: base } = checkpoint;
  const plan = planMerge(adapter, { layers, head, names: base.names, shapeOf: (name) => base.get(name).shape }); // prettier-ignore
  const rows = layers.find(({ kind }) => kind === "embedding")?.weight;
  const vocabulary = rows === undefined ? undefined : plan.weights.get(rows)?.shape[0];
  return {
    ...checkpoint,
    config: {
      ...checkpoint.config,
      ...(plan.unties && { tie_word_embeddings: false }),
      ...(vocabulary !== undefined && "vocab_size" in checkpoint.config && { vocab_size: vocabulary }), // prettier-ignore
      ...dtypeFields(checkpoint.config, options.dtype),
    },
    weights: mergedWeights(base, plan.weights, options),
    changed: [...plan.weights].filter(([, { steps }]) => steps.length > 0).map(([name]) => name),
    unties: plan.unties,
  };
}

/** `base` with each weight as `plan` makes it, computed when it is read. */
export function mergedWeights(
  base: WeightSource,
  plan: ReadonlyMap<string, MergedWeight>,
  { dtype, safe = true }: MergeOptions,
): WeightSource {
  const dtypeOf = (stored: DType): DType => (dtype !== undefined && isFloat(stored) ? dtype : stored); // prettier-ignore
  const find = (name: string): MergedWeight => plan.get(name) ?? { source: name, steps: [], shape: [] }; // prettier-ignore
  return {
    names: [...plan.keys()],
    get(name): Weight {
      const { source, steps, shape } = find(name);
      const stored = base.get(source);
      const target = dtypeOf(stored.dtype);
      if (steps.length === 0 && target === stored.dtype) return stored;
      return { dtype: target, shape, bytes: { kind: "computed" } };
    },
    async read(name) {
      const { source, steps } = find(name);
      const stored = await base.read(source);
      const target = dtypeOf(stored.dtype);
      if (steps.length === 0) return convert(stored, target);
      const merged = convert(mergeWeight(stored, steps), target);
      if (safe) checkFinite(name, merged);
      return merged;
    },
  };
}

/** @throws LorikeetError `not-finite` */
function checkFinite(name: string, merged: Tensor): void {
  const values = convert(merged, "f32").data as Float32Array;
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new LorikeetError(
      "not-finite",
      `Expected finite merged weights, got ${values[bad]} in element ${bad} of "${name}" as ${merged.dtype}`,
      {
        hint: merged.dtype === "f16" ? "f16 ends at 65504: merge with --dtype bf16 or f32." : "The base or the adapter holds values that are not finite; nothing was written.",
      },
    ); // prettier-ignore
}

/** @throws LorikeetError `code` for adapters of a base that their initialisation changed */
export function refuseMovedBase(
  { config: { init } }: Adapter,
  code: "cannot-merge" | "cannot-unmerge" = "cannot-merge",
): void {
  if (!changesBase(init)) return;
  throw new LorikeetError(
    code,
    `Expected an adapter of the untouched base, got one that was initialised with ${String(init)}, which changes the base first`,
    { hint: "Make it plain LoRA first: lorikeet convert A --to peft --plain -o OUT." },
  );
}

/** @throws LorikeetError `quantized-base` */
async function refuseQuantized({ path }: Checkpoint): Promise<void> {
  if (!path.endsWith(".gguf")) return;
  const { header } = await openGguf(path);
  const types = new Set(header.tensors.map(({ type }) => type));
  const quantized = [...types].filter((type) => !["F32", "F16", "BF16"].includes(type));
  if (quantized.length === 0) return;
  throw new LorikeetError(
    "quantized-base",
    `Expected a base in full precision to merge into, got ${path} with ${quantized.join(", ")} tensors`,
    {
      hint: "Merge into the model's safetensors (or F16/BF16 GGUF) and quantize the result, or pass --requantize to merge into the rounded weights. Or export the adapter alone: lorikeet convert ADAPTER --to gguf.",
    },
  );
}

function dtypeFields(
  config: Checkpoint["config"],
  dtype: DType | undefined,
): Record<string, string> {
  if (dtype === undefined) return {};
  return { ["torch_dtype" in config ? "torch_dtype" : "dtype"]: TORCH_NAMES[dtype] ?? dtype };
}
