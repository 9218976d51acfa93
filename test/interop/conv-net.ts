import type { Node } from "../../src/ir/node.ts";
import { add } from "../../src/ops/add.ts";
import { conv1d } from "../../src/ops/conv1d.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { input, parameter } from "../../src/ops/leaf.ts";
import { linear } from "../../src/ops/linear.ts";
import { mean } from "../../src/ops/mean.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { silu } from "../../src/ops/silu.ts";

/** `ConvNet` of bases.py on the input `x` (B, 3, H, W): class logits (B, 5). */
export function convNet(shape: readonly number[]): Node {
  const x = input("x", shape);
  const first = silu(biased("conv", convolve(x, "conv", [8, 3, 3, 3], { padding: [1, 1] })));
  const down = convolve(first, "down", [12, 8, 3, 3], { stride: [2, 2], padding: [1, 1] });
  const point = silu(convolve(silu(biased("down", down)), "point", [8, 12, 1, 1], {}));
  const grouped = convolve(point, "grouped", [8, 4, 3, 3], { padding: [1, 1], groups: 2 });
  const rows = meanOver(silu(biased("grouped", grouped)), 2);
  const line = conv1d(rows, parameter("line.weight", [6, 8, 3]), { padding: 1 });
  const pooled = meanOver(silu(biased("line", line)), 2);
  const logits = linear(pooled, parameter("head.weight", [5, 6]));
  return add(logits, parameter("head.bias", [5]));
}

function convolve(
  x: Node,
  name: string,
  shape: readonly number[],
  options: Parameters<typeof conv2d>[2],
): Node {
  return conv2d(x, parameter(`${name}.weight`, shape), options);
}

function biased(name: string, y: Node): Node {
  const channels = y.shape[1]!;
  const ones = y.shape.slice(2).map(() => 1);
  const bias = parameter(`${name}.bias`, [channels]);
  return add(y, reshape(bias, { shape: [1, channels, ...ones] }));
}

function meanOver(x: Node, axis: number): Node {
  return mean(x, { axes: [axis] });
}
