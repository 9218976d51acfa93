import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { constant } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { transpose } from "../ops/transpose.ts";
import { sizeOf } from "../tensor/shape.ts";
import { adaptedNorm, doraLayer } from "./dora.ts";
import { scaleRows } from "./lora-linear.ts";
import type { LoraTarget } from "./lora.ts";

/** Rows of an embedding with its adapter: + scale · (Aᵀ)[ids]·Bᵀ, or DoRA's form of it. Nothing is dropped. */
export function adaptEmbedding(node: Node, target: LoraTarget): Node {
  const { site, named } = target;
  const [ids, weight] = node.inputs as [Node, Node];
  const [V, C] = weight.shape as [number, number];
  const a = named("lora_embedding_A", [site.rank, V]);
  const b = named("lora_embedding_B", [C, site.rank]);
  const flat = reshape(ids, { shape: [sizeOf(ids.shape)] });
  const down = gatherRows(transpose(a, { perm: [1, 0] }), flat);
  const rows = linear(scaleRows(down, target), b);
  const delta = reshape(mul(rows, constant(site.scale)), { shape: node.shape });
  if (!site.useDora) return add(node, delta);
  const norm = adaptedNorm({ weight, fanInFanOut: true, a, b, scale: site.scale });
  const magnitude = named("lora_magnitude_vector", [C]);
  return doraLayer({ node, base: node, delta, magnitude, norm });
}
