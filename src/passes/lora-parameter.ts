import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { constant } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { sizeOf } from "../tensor/shape.ts";
import type { LoraTarget } from "./lora.ts";

/**
 * A layer whose stored weight W (n, m) becomes W + scale · B·A with A (r, m) and B (n, r), whichever of the axes is
 * the layer's input.
 * @throws LorikeetError `unsupported-lora-variant` for a weight that is no matrix
 */
export function adaptParameter(node: Node, { candidate, site, named }: LoraTarget): Node {
  const [x, weight] = node.inputs as [Node, Node];
  if (weight.shape.length !== 2)
    throw new LorikeetError(
      "unsupported-lora-variant",
      `Expected target_parameters to be matrices, got ${candidate.weight} of a ${candidate.kind}`,
      { hint: "Name the layer in target_modules instead." },
    );
  const [n, m] = weight.shape as [number, number];
  const a = named("lora_A.weight", [site.rank, m]);
  const b = named("lora_B.weight", [n, site.rank]);
  const up = productOf(x, a, b, candidate);
  return add(node, reshape(mul(up, constant(site.scale)), { shape: node.shape }));
}

function productOf(
  x: Node,
  a: Node,
  b: Node,
  { kind, fanInFanOut }: LoraTarget["candidate"],
): Node {
  if (kind === "embedding") {
    const rows = gatherRows(b, reshape(x, { shape: [sizeOf(x.shape)] }));
    return linear(rows, a, { fanInFanOut: true });
  }
  if (fanInFanOut) return linear(linear(x, b, { fanInFanOut }), a, { fanInFanOut });
  return linear(linear(x, a), b);
}
