import { type Shape, sizeOf } from "../tensor/shape.ts";
import { shapeError } from "./define.ts";

/** How a kernel moves over an image; pairs are [height, width]. */
export interface ConvAttrs {
  readonly stride: readonly number[];
  /** Zeros added on both sides. */
  readonly padding: readonly number[];
  readonly dilation: readonly number[];
  /** Channels are split into this many groups; a group of the result sees one group of the image. */
  readonly groups: number;
}

/** Stride 1, no padding, no dilation, one group. */
export const convDefaults: ConvAttrs = {
  stride: [1, 1],
  padding: [0, 0],
  dilation: [1, 1],
  groups: 1,
};

/** Elements of the padded image that `kernel` elements reach over; axis 0 is height, 1 is width. */
export function reachOf(kernel: number, axis: 0 | 1, { dilation }: ConvAttrs): number {
  return dilation[axis]! * (kernel - 1) + 1;
}

/**
 * Shape (B, Co, Ho, Wo) of the convolution of an `image` (B, Ci, H, W) by a `weight` (Co, Ci/groups, kh, kw).
 * @throws LorikeetError `shape` when they do not fit, or the kernel is larger than the padded image
 */
export function convShape(image: Shape, weight: Shape, attrs: ConvAttrs): number[] {
  const [B, Ci, ...sizes] = image as [number, number, ...number[]];
  const [Co, inner, ...kernel] = weight as [number, number, ...number[]];
  const { groups, stride, padding } = attrs;
  const result = ([0, 1] as const).map(
    (axis) =>
      Math.floor(
        (sizes[axis]! + 2 * padding[axis]! - reachOf(kernel[axis]!, axis, attrs)) / stride[axis]!,
      ) + 1,
  );
  const isWhole = image.length === 4 && weight.length === 4 && Co % groups === 0;
  if (!isWhole || Ci !== inner * groups || !result.every((size) => size > 0))
    throw shapeError(
      "a convolution",
      `an image (B, ${inner * groups}, H, W), a weight (Co, Ci/${groups}, kh, kw) and a kernel inside the image`,
      { image, weight, padding },
    );
  return [B, Co, ...result];
}

/** A row of the image and a row of the result that one kernel element joins, as offsets of their first elements. */
export interface ConvRow {
  image: number;
  result: number;
  weight: number;
  /** Columns of the result from `from` to before `to`; the image's column is `step` · column + `shift`. */
  from: number;
  to: number;
  step: number;
  shift: number;
}

/**
 * Calls `visit` for every image row, result row and kernel element that meet: the loop of all three products
 * that a convolution and its gradients are. The row given is reused.
 */
export function forEachConvRow(
  { image, result, weight }: { image: Shape; result: Shape; weight: Shape },
  { stride, padding, dilation, groups }: ConvAttrs,
  visit: (row: ConvRow) => void,
): void {
  const [B, Ci, H, W] = image as [number, number, number, number];
  const [, Co, Ho, Wo] = result as [number, number, number, number];
  const [, inner, kh, kw] = weight as [number, number, number, number];
  const [area, elements] = [kh * kw, sizeOf(weight.slice(1))];
  const step = stride[1]!;
  const row: ConvRow = { image: 0, result: 0, weight: 0, from: 0, to: 0, step, shift: 0 };
  for (let bo = 0; bo < B * Co; bo++) {
    const o = bo % Co;
    const firstImage = Math.floor(bo / Co) * Ci + Math.floor((o * groups) / Co) * inner;
    for (let e = 0; e < elements; e++) {
      const plane = firstImage + Math.floor(e / area);
      const down = Math.floor((e % area) / kw) * dilation[0]! - padding[0]!;
      row.weight = o * elements + e;
      row.shift = (e % kw) * dilation[1]! - padding[1]!;
      row.from = Math.max(0, Math.ceil(-row.shift / step));
      row.to = Math.min(Wo, Math.floor((W - 1 - row.shift) / step) + 1);
      for (let y = 0; y < Ho; y++) {
        const h = y * stride[0]! + down;
        if (h < 0 || h >= H) continue;
        row.image = (plane * H + h) * W;
        row.result = (bo * Ho + y) * Wo;
        visit(row);
      }
    }
  }
}
