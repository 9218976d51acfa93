import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { topological } from "../ir/graph.ts";
import { add } from "../ops/add.ts";
import { dropout } from "../ops/dropout.ts";
import { embedding } from "../ops/embedding.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { constant, isFrozen, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { transpose } from "../ops/transpose.ts";
import { sizeOf } from "../tensor/shape.ts";
import { doraLinear } from "./dora.ts";

/** A layer that LoRA can attach to. */
export interface LoraCandidate {
  /** Module path as in the checkpoint: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly kind: "linear" | "embedding";
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** The weight is stored (in, out). */
  readonly fanInFanOut: boolean;
  /** Name of the frozen weight. */
  readonly weight: string;
}

/** How one layer is adapted: ΔW = scale · B·A. */
export interface LoraSite {
  readonly module: string;
  readonly rank: number;
  readonly scale: number;
  /** Probability that an element of the adapter's input is dropped in training. */
  readonly dropout: number;
  readonly useDora: boolean;
  /** B has a bias. */
  readonly loraBias: boolean;
}

/** Options of `insertLora`. */
export interface LoraInsertion {
  /** Integer scalar that seeds dropout; without it (inference) nothing is dropped. */
  readonly seed?: Node;
  /** Graph name of a tensor of the adapter of `module`: `lora_A.weight`, `lora_magnitude_vector` … */
  readonly nameOf: (module: string, part: string) => string;
}

/** Every layer of `roots` that LoRA can attach to, in the order of execution, once each. */
export function loraCandidates(roots: readonly Node[]): LoraCandidate[] {
  const found = new Map<string, LoraCandidate>();
  for (const node of topological(roots)) {
    const candidate = candidateAt(node);
    if (candidate && !found.has(candidate.module)) found.set(candidate.module, candidate);
  }
  return [...found.values()];
}

/**
 * Replaces each layer y = x·Wᵀ that has a site by y + scale · (dropout(x)·Aᵀ)·Bᵀ with trainable A (r, in) and
 * B (out, r); embeddings likewise with A (r, V) and B (C, r). https://arxiv.org/abs/2106.09685
 */
export function insertLora(
  roots: readonly Node[],
  sites: ReadonlyMap<string, LoraSite>,
  insertion: LoraInsertion,
): Node[] {
  const streams = new Map([...sites.keys()].map((module, index) => [module, index]));
  return rewrite(roots, (node) => {
    const candidate = candidateAt(node);
    const site = candidate && sites.get(candidate.module);
    if (!site) return undefined;
    const stream = streams.get(site.module)!;
    return candidate.kind === "embedding"
      ? adaptEmbedding(node, site, insertion)
      : adaptLinear(node, candidate, site, { ...insertion, stream });
  });
}

function candidateAt(node: Node): LoraCandidate | undefined {
  const isEmbedding = node.op === embedding.rules;
  if (node.op !== linear.rules && !isEmbedding) return undefined;
  const weight = node.inputs[1]!;
  if (!isFrozen(weight)) return undefined;
  const [rows, columns] = weight.shape as [number, number];
  const fanInFanOut = node.attrs["fanInFanOut"] === true;
  const isTransposed = fanInFanOut || isEmbedding;
  return {
    module: String(node.attrs["module"] ?? "") || weight.name!.replace(/\.weight$/, ""),
    kind: isEmbedding ? "embedding" : "linear",
    inFeatures: isTransposed ? rows : columns,
    outFeatures: isTransposed ? columns : rows,
    fanInFanOut,
    weight: weight.name!,
  };
}

function adaptLinear(
  node: Node,
  { inFeatures, outFeatures, fanInFanOut }: LoraCandidate,
  site: LoraSite,
  { seed, nameOf, stream }: LoraInsertion & { stream: number },
): Node {
  const [x, weight] = node.inputs as [Node, Node];
  const named = (part: string, shape: number[]): Node =>
    parameter(nameOf(site.module, part), shape, { trainable: true });
  const a = named("lora_A.weight", [site.rank, inFeatures]);
  const b = named("lora_B.weight", [outFeatures, site.rank]);
  const isDropping = seed !== undefined && site.dropout > 0;
  const input = isDropping ? dropout(x, seed, { p: site.dropout, stream }) : x;
  const up = linear(linear(input, a), b);
  const delta = mul(
    site.loraBias ? add(up, named("lora_B.bias", [outFeatures])) : up,
    constant(site.scale),
  );
  if (!site.useDora) return add(node, delta);
  const magnitude = named("lora_magnitude_vector", [outFeatures]);
  // with dropout the base product must see the dropped input too, as in PEFT
  const base = isDropping ? linear(input, weight, { fanInFanOut }) : node;
  return doraLinear({ node, base, delta, weight, fanInFanOut, a, b, magnitude, scale: site.scale });
}

function adaptEmbedding(node: Node, site: LoraSite, { nameOf }: LoraInsertion): Node {
  const [ids, weight] = node.inputs as [Node, Node];
  const [V, C] = weight.shape as [number, number];
  const a = parameter(nameOf(site.module, "lora_embedding_A"), [site.rank, V], { trainable: true });
  const b = parameter(nameOf(site.module, "lora_embedding_B"), [C, site.rank], { trainable: true });
  const flat = reshape(ids, { shape: [sizeOf(ids.shape)] });
  const rows = linear(gatherRows(transpose(a, { perm: [1, 0] }), flat), b);
  return add(node, reshape(mul(rows, constant(site.scale)), { shape: node.shape }));
}
