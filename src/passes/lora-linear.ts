import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { dropout } from "../ops/dropout.ts";
import { constant } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { adaptedNorm, doraLayer } from "./dora.ts";
import type { LoraTarget } from "./lora.ts";

/** y = x·Wᵀ with its adapter: + scale · (dropout(x)·Aᵀ)·Bᵀ, or DoRA's form of it. */
export function adaptLinear(node: Node, target: LoraTarget): Node {
  const { candidate, site, named } = target;
  const { inFeatures, outFeatures, fanInFanOut } = candidate;
  const [x, weight] = node.inputs as [Node, Node];
  if (site.tiedTo !== undefined) return add(node, tiedDelta(x, site.tiedTo, target));
  const a = named("lora_A.weight", [site.rank, inFeatures]);
  const b = named("lora_B.weight", [outFeatures, site.rank]);
  const input = dropped(x, "input", target);
  const up = linear(scaleRows(linear(input, a), target), b);
  const biased = site.loraBias ? add(up, named("lora_B.bias", [outFeatures])) : up;
  const delta = dropped(mul(biased, constant(site.scale)), "output", target);
  if (!site.useDora) return add(node, delta);
  // with dropout the base product must see the dropped input too, as in PEFT
  const base = input === x ? node : linear(input, weight, { fanInFanOut });
  const norm = adaptedNorm({ weight, fanInFanOut, a, b, scale: site.scale });
  const magnitude = named("lora_magnitude_vector", [outFeatures]);
  return doraLayer({ node, base, delta, magnitude, norm });
}

/** What the adapter of the embedding `tiedTo`, A (r, V) and B (C, r), adds to the logits of the head that shares its matrix. */
function tiedDelta(x: Node, tiedTo: string, { candidate, site, named }: LoraTarget): Node {
  const a = named("lora_embedding_A", [site.rank, candidate.outFeatures], tiedTo);
  const b = named("lora_embedding_B", [candidate.inFeatures, site.rank], tiedTo);
  const down = linear(x, b, { fanInFanOut: true });
  return mul(linear(down, a, { fanInFanOut: true }), constant(site.scale));
}

/** x after the layer's dropout, where it acts at `place` and the run is a training run. */
export function dropped(
  x: Node,
  place: "input" | "output",
  { site, seed, stream }: LoraTarget,
): Node {
  const isActive = seed !== undefined && site.dropout > 0 && (site.dropoutOn ?? "input") === place;
  return isActive ? dropout(x, seed, { p: site.dropout, stream }) : x;
}

/** u = x·Aᵀ (batch · T, rank), each row of the batch times its factors. */
export function scaleRows(u: Node, { rowScales }: LoraTarget): Node {
  if (!rowScales) return u;
  const [batch, rank] = rowScales.shape as [number, number];
  const rows = reshape(u, { shape: [batch, u.shape[0]! / batch, rank] });
  return reshape(mul(rows, reshape(rowScales, { shape: [batch, 1, rank] })), { shape: u.shape });
}
