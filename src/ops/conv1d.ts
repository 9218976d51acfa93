import { conv2d } from "./conv2d.ts";
import { defineOp, type Op } from "./define.ts";
import type { Node } from "../ir/node.ts";
import { reshape } from "./reshape.ts";

/** How a kernel moves along a line. */
export interface Conv1dAttrs {
  readonly stride: number;
  /** Zeros added on both sides. */
  readonly padding: number;
  readonly dilation: number;
  readonly groups: number;
}

/** Convolution of x (B, Ci, L) by a weight (Co, Ci/groups, k): (B, Co, Lo). What LoRA attaches to. */
export const conv1d: Op<["x", "weight"], object, Conv1dAttrs> = defineOp("conv1d", {
  inputs: ["x", "weight"],
  defaults: { stride: 1, padding: 0, dilation: 1, groups: 1 },
  infer: ({ x, weight, ...attrs }) => asConv2d(x, weight, attrs),
  decompose: ({ x, weight, stride, padding, dilation, groups }) =>
    asConv2d(x, weight, { stride, padding, dilation, groups }),
  cases: [
    { shapes: { x: [2, 3, 7], weight: [4, 3, 3] }, attrs: { padding: 1, stride: 2 } },
    {
      shapes: { x: [1, 1, 3], weight: [1, 1, 2] },
      known: { inputs: { x: [1, 2, 3], weight: [1, 10] }, output: [21, 32] },
    },
  ],
});

function asConv2d(x: Node, weight: Node, attrs: Conv1dAttrs): Node {
  const wide = ({ shape: [a, b, length] }: Node): number[] => [a!, b!, 1, length!];
  const y = conv2d(reshape(x, { shape: wide(x) }), reshape(weight, { shape: wide(weight) }), {
    stride: [1, attrs.stride],
    padding: [0, attrs.padding],
    dilation: [1, attrs.dilation],
    groups: attrs.groups,
  });
  return reshape(y, { shape: y.shape.toSpliced(2, 1) });
}
