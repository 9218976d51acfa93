import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import type { GgufMetadata, GgufValue } from "../../formats/gguf/metadata.ts";
import { type GgufArchitecture, ggufArchitectureOf, toGgufName } from "../../formats/gguf/names.ts";
import { applyGgufTransform, type HeadCounts } from "../../formats/gguf/transform.ts";
import type { LoraCandidate } from "../../passes/lora.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { Adapter } from "../adapter.ts";
import { adapterModules, pairOf } from "../adapter-modules.ts";
import { changesBase } from "../init/initial-part.ts";
import { siteOf } from "../targets.ts";

/** What an adapter's GGUF file is made from, besides the adapter. */
export interface GgufAdapterBase {
  /** The base's config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly layers: readonly LoraCandidate[];
}

/** Metadata and f32 tensors of a file for llama.cpp. */
export interface GgufAdapter {
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

const REMEDY = "Merge it instead: lorikeet merge --to gguf.";

/**
 * `adapter` for llama.cpp, which knows one alpha and scales by alpha / rank: what differs (rank-stabilised scales,
 * alpha_pattern) goes into B. Rows of B of interleaved query and key projections move as the base's rows do.
 * https://github.com/ggml-org/llama.cpp/blob/master/src/llama-adapter.cpp
 * @throws LorikeetError `unsupported-gguf` listing what llama.cpp has no place for; `unsupported-architecture`
 */
export function adapterToGguf(adapter: Adapter, base: GgufAdapterBase): GgufAdapter {
  const architecture = ggufArchitectureOf(String(base.config["model_type"]));
  const { lora, whole, rows } = adapterModules(adapter);
  const faults = [...whole.keys(), ...rows.keys()].map((name) => `trained weight ${name}`);
  if (changesBase(adapter.config.init)) faults.push(`${String(adapter.config.init)}, which changes the base first`); // prettier-ignore
  const tensors = new Map<string, Tensor>();
  const strengths = [...lora].map(([module, parts]) => strengthOf(adapter, module, parts));
  const alpha = strengths.every((value) => value === strengths[0]) ? strengths[0]! : adapter.config.alpha; // prettier-ignore
  for (const [index, [module, parts]] of [...lora].entries()) {
    const layer = base.layers.find((candidate) => candidate.module === module);
    const fault = faultOf(module, parts, layer, architecture);
    if (fault === undefined)
      for (const [name, value] of pairFor(layer!, parts, {
        architecture,
        heads: headsOf(base.config),
        factor: strengths[index]! / alpha,
      }))
        // prettier-ignore
        tensors.set(name, value);
    else faults.push(fault);
  }
  if (faults.length > 0)
    throw faultsError("unsupported-gguf", "an adapter that llama.cpp can apply", faults, REMEDY);
  return { metadata: metadataOf(architecture, alpha), tensors };
}

/** scale · rank of a module: the alpha that llama.cpp would need for it. */
function strengthOf(
  { config }: Adapter,
  module: string,
  parts: ReadonlyMap<string, Tensor>,
): number {
  return siteOf(config, module).scale * pairOf(parts).a.shape[0]!;
}

function metadataOf(architecture: string, alpha: number): GgufMetadata {
  return new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: architecture }],
    ["general.type", { type: "string", value: "adapter" }],
    ["adapter.type", { type: "string", value: "lora" }],
    ["adapter.lora.alpha", { type: "f32", value: alpha }],
  ]);
}

function faultOf(
  module: string,
  parts: ReadonlyMap<string, Tensor>,
  layer: LoraCandidate | undefined,
  architecture: GgufArchitecture,
): string | undefined {
  if (!layer) return `${module}: no layer of the base`;
  if (parts.has("lora_magnitude_vector")) return `${module}: DoRA`;
  if (parts.has("lora_B.bias")) return `${module}: a bias of B`;
  // a shared matrix has one name there, but an adapter changes one use of it
  if (layer.weight !== `${module}.weight`) return `${module}: an output head tied to the embedding`;
  if (!toGgufName(architecture, layer.weight)) return `${module}: no place in ${architecture}`;
  return undefined;
}

function pairFor(
  layer: LoraCandidate,
  parts: ReadonlyMap<string, Tensor>,
  { architecture, heads, factor }: { architecture: GgufArchitecture; heads: HeadCounts; factor: number }, // prettier-ignore
): [string, Tensor][] {
  const { name, transform } = toGgufName(architecture, layer.weight)!;
  const { a, b } = pairOf(parts);
  const down = tensor("f32", a.shape, toFloat32(a));
  const up = tensor("f32", b.shape, toFloat32(b).map((value) => value * factor)); // prettier-ignore
  // GPT-2's transposition concerns W alone: A and B are (r, in) and (out, r) already
  const isPermuted = transform === "permute-q" || transform === "permute-k";
  return [
    [`${name}.lora_a`, layer.kind === "embedding" ? applyGgufTransform(down, "transpose", heads) : down], // prettier-ignore
    [`${name}.lora_b`, isPermuted ? applyGgufTransform(up, transform, heads) : up],
  ];
}

/** Numbers of heads of the model that `config` describes. */
export function headsOf(config: GgufAdapterBase["config"]): HeadCounts {
  const heads = Number(config["num_attention_heads"] ?? config["n_head"]);
  return { heads, keyValueHeads: Number(config["num_key_value_heads"] ?? heads) };
}

/** The error for embeddings that share their matrix with the head. @throws LorikeetError `unsupported-gguf` */
export function refuseTiedEmbedding(adapter: Adapter, { config, layers }: GgufAdapterBase): void {
  const isTied = layers.some(({ module, weight }) => weight !== `${module}.weight`);
  const embedding = layers.find(({ kind }) => kind === "embedding");
  if (!isTied || !embedding || !adapterModules(adapter).lora.has(embedding.module)) return;
  throw new LorikeetError(
    "unsupported-gguf",
    `Expected an adapter that llama.cpp can apply, got one of ${embedding.module}, which ${String(config["model_type"])} shares with its head here`,
    { hint: REMEDY },
  );
}
