import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { conv1d } from "../ops/conv1d.ts";
import { conv2d } from "../ops/conv2d.ts";
import { constant } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { sizeOf } from "../tensor/shape.ts";
import { adaptedNorm, doraLayer } from "./dora.ts";
import { dropped } from "./lora-linear.ts";
import type { LoraTarget } from "./lora.ts";

/**
 * A convolution with its adapter: A (r, in, k…) moves as the base's kernel does and sees all channels, B
 * (out, r/groups, 1…) mixes its results, in the base's groups.
 */
export function adaptConv(node: Node, target: LoraTarget): Node {
  const { candidate, site, named } = target;
  const { kernel, groups, inFeatures, outFeatures } = candidate;
  const [x, weight] = node.inputs as [Node, Node];
  const ones = kernel.map(() => 1);
  const a = named("lora_A.weight", [site.rank, inFeatures, ...kernel]);
  const b = named("lora_B.weight", [outFeatures, site.rank / groups, ...ones]);
  const input = dropped(x, "input", target);
  const up = pointwise(convolve(input, a, { ...node.attrs, groups: 1 }), b, groups);
  const perChannel = [1, outFeatures, ...ones];
  const biased = site.loraBias
    ? add(up, reshape(named("lora_B.bias", [outFeatures]), { shape: perChannel }))
    : up;
  const delta = dropped(mul(biased, constant(site.scale)), "output", target);
  if (!site.useDora) return add(node, delta);
  const base = input === x ? node : convolve(input, weight, node.attrs);
  const matrices = [weight, a, b].map((part) => matrixOf(part)) as [Node, Node, Node];
  const norm = adaptedNorm({
    weight: matrices[0],
    fanInFanOut: false,
    a: matrices[1],
    b: matrices[2],
    scale: site.scale,
  });
  const magnitude = named("lora_magnitude_vector", perChannel);
  return doraLayer({ node, base, delta, magnitude, norm: reshape(norm, { shape: perChannel }) });
}

function convolve(x: Node, weight: Node, attrs: Node["attrs"]): Node {
  return weight.shape.length === 3 ? conv1d(x, weight, attrs) : conv2d(x, weight, attrs);
}

function pointwise(x: Node, weight: Node, groups: number): Node {
  return weight.shape.length === 3 ? conv1d(x, weight, { groups }) : conv2d(x, weight, { groups });
}

function matrixOf(weight: Node): Node {
  const [rows, ...rest] = weight.shape as [number, ...number[]];
  return reshape(weight, { shape: [rows, sizeOf(rest)] });
}
