import type { Node } from "../ir/node.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";

/** Sums `x` over the axes along which `shape` was broadcast to it: the gradient of broadcasting. */
export function sumTo(x: Node, { shape }: { shape: Shape }): Node {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  const axes = x.shape.flatMap((dim, axis) =>
    axis < lead || (shape[axis - lead] === 1 && dim !== 1) ? [axis] : [],
  );
  const summed = axes.length > 0 ? reduceSum(x, { axes }) : x;
  return sameShape(summed.shape, shape) ? summed : reshape(summed, { shape });
}
