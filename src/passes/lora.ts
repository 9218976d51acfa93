import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { topological } from "../ir/graph.ts";
import { conv1d } from "../ops/conv1d.ts";
import { conv2d } from "../ops/conv2d.ts";
import { embedding } from "../ops/embedding.ts";
import { isFrozen, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import type { Shape } from "../tensor/shape.ts";
import { adaptConv } from "./lora-conv.ts";
import { adaptEmbedding } from "./lora-embedding.ts";
import { adaptLinear } from "./lora-linear.ts";
import { adaptParameter } from "./lora-parameter.ts";

/** A layer that LoRA can attach to. */
export interface LoraCandidate {
  /** Module path as in the checkpoint: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly kind: "linear" | "embedding" | "conv1d" | "conv2d";
  /** Features, channels, or rows of an embedding. */
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Size of a convolution's kernel; [] for other layers. */
  readonly kernel: Shape;
  readonly groups: number;
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
  /** Where dropout acts: on x (default) or on the adapter's result. */
  readonly dropoutOn?: "input" | "output";
  readonly useDora: boolean;
  /** B has a bias. */
  readonly loraBias: boolean;
  /** The bare weight matrix as stored is adapted (`target_parameters`), whatever layer it is used in. */
  readonly isParameter?: boolean;
  /** The layer is the head that shares this embedding's matrix, and its adapter too: ΔW of the embedding. */
  readonly tiedTo?: string;
}

/** Options of `insertLora`. */
export interface LoraInsertion {
  /** Integer scalar that seeds dropout; without it (inference) nothing is dropped. */
  readonly seed?: Node;
  /** Graph name of a tensor of the adapter of `module`: `lora_A.weight`, `lora_magnitude_vector` … */
  readonly nameOf: (module: string, part: string) => string;
  /**
   * Factors (batch, rank) on x·Aᵀ of each row of the batch, one rank for all modules: which columns of a bank of
   * adapters a row uses. The tokens of a row follow each other.
   */
  readonly rowScales?: Node;
}

/** A layer that is about to be adapted. */
export interface LoraTarget extends LoraInsertion {
  readonly candidate: LoraCandidate;
  readonly site: LoraSite;
  /** Stream of random numbers of the layer's dropout. */
  readonly stream: number;
  /** The trainable tensor `part` of the layer's adapter. */
  readonly named: (part: string, shape: Shape, module?: string) => Node;
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
 * B (out, r); embeddings likewise with A (r, V) and B (C, r), convolutions with A (r, in, k…) and B (out, r, 1…).
 * https://arxiv.org/abs/2106.09685
 */
export function insertLora(
  roots: readonly Node[],
  sites: ReadonlyMap<string, LoraSite>,
  insertion: LoraInsertion,
): Node[] {
  const streams = new Map([...sites.keys()].map((module, index) => [module, index]));
  const made = new Map<string, Node>();
  return rewrite(roots, (node) => {
    const candidate = candidateAt(node);
    const site = candidate && sites.get(candidate.module);
    if (!site) return undefined;
    const named = (part: string, shape: Shape, module = site.module): Node => {
      const name = insertion.nameOf(module, part);
      const known = made.get(name) ?? parameter(name, shape, { trainable: true });
      made.set(name, known);
      return known;
    };
    const target = { ...insertion, candidate, site, named, stream: streams.get(site.module)! };
    if (site.isParameter) return adaptParameter(node, target);
    if (candidate.kind === "embedding") return adaptEmbedding(node, target);
    return candidate.kind === "linear" ? adaptLinear(node, target) : adaptConv(node, target);
  });
}

const kinds = new Map([
  [linear.rules, "linear"],
  [embedding.rules, "embedding"],
  [conv1d.rules, "conv1d"],
  [conv2d.rules, "conv2d"],
] as const);

function candidateAt(node: Node): LoraCandidate | undefined {
  const kind = kinds.get(node.op);
  const weight = node.inputs[1];
  if (!kind || !weight || !isFrozen(weight)) return undefined;
  const [rows, columns, ...kernel] = weight.shape as [number, number, ...number[]];
  const fanInFanOut = node.attrs["fanInFanOut"] === true;
  const isTransposed = fanInFanOut || kind === "embedding";
  const groups = Number(node.attrs["groups"] ?? 1);
  return {
    module: String(node.attrs["module"] ?? "") || weight.name!.replace(/\.weight$/, ""),
    kind,
    inFeatures: isTransposed ? rows : columns * groups,
    outFeatures: isTransposed ? columns : rows,
    kernel,
    groups,
    fanInFanOut,
    weight: weight.name!,
  };
}
