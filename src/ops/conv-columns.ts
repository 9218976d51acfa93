/** @file Convolutions as matrix products: each kernel element sees the image shifted (im2col), and back. */
import type { Node } from "../ir/node.ts";
import type { Shape } from "../tensor/shape.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import type { ConvAttrs } from "./conv-geometry.ts";
import { pad } from "./pad.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { transpose } from "./transpose.ts";

/** Sizes of a convolution: of the image, the result and the kernel. */
export interface ConvSizes {
  /** (B, Ci, H, W). */
  readonly image: Shape;
  /** (B, Co, Ho, Wo). */
  readonly result: Shape;
  readonly kernel: readonly number[];
}

/** What each kernel element sees of `x` (B, Ci, H, W): (groups, Ci/groups · kh · kw, B · Ho · Wo). */
export function imageColumns(x: Node, sizes: ConvSizes, attrs: ConvAttrs): Node {
  const [B, Ci] = x.shape as [number, number];
  const [Ho, Wo] = sizes.result.slice(2) as [number, number];
  const [kh, kw] = sizes.kernel as [number, number];
  const image = padBoth(transpose(x, { perm: [1, 0, 2, 3] }), attrs.padding);
  const shifted = kernelElements(sizes.kernel).map((element) => {
    const rows = every(image, 2, Ho, stepsOf(element, 0, attrs));
    const cells = every(rows, 3, Wo, stepsOf(element, 1, attrs));
    return reshape(cells, { shape: [Ci, 1, B * Ho * Wo] });
  });
  const all = shifted.length === 1 ? shifted[0]! : concat(shifted, { axis: 1 });
  return reshape(all, { shape: [attrs.groups, (Ci / attrs.groups) * kh * kw, B * Ho * Wo] });
}

/** The adjoint of `imageColumns`: adds what each kernel element gives to the pixels that it sees, (B, Ci, H, W). */
export function columnsImage(columns: Node, sizes: ConvSizes, attrs: ConvAttrs): Node {
  const [B, Ci, H, W] = sizes.image as [number, number, number, number];
  const [Ho, Wo] = sizes.result.slice(2) as [number, number];
  const [ph, pw] = attrs.padding as [number, number];
  const elements = kernelElements(sizes.kernel);
  const split = reshape(columns, { shape: [Ci, elements.length, B * Ho * Wo] });
  const images = elements.map((element, e) => {
    const own = slice(split, { axis: 1, start: e, end: e + 1 });
    const cells = reshape(own, { shape: [Ci, B, Ho, Wo] });
    const rows = spread(cells, 2, H + 2 * ph, stepsOf(element, 0, attrs));
    return spread(rows, 3, W + 2 * pw, stepsOf(element, 1, attrs));
  });
  const padded = images.reduce((sum, image) => add(sum, image));
  const rows = slice(padded, { axis: 2, start: ph, end: ph + H });
  const image = slice(rows, { axis: 3, start: pw, end: pw + W });
  return transpose(image, { perm: [1, 0, 2, 3] });
}

/** (B, Co, Ho, Wo) as a matrix for each group, (groups, Co/groups, B · Ho · Wo). */
export function resultMatrix(y: Node, groups: number): Node {
  const [B, Co, Ho, Wo] = y.shape as [number, number, number, number];
  const channels = transpose(y, { perm: [1, 0, 2, 3] });
  return reshape(channels, { shape: [groups, Co / groups, B * Ho * Wo] });
}

/** The inverse of `resultMatrix`. */
export function matrixResult(matrix: Node, [B, Co, Ho, Wo]: Shape): Node {
  return transpose(reshape(matrix, { shape: [Co!, B!, Ho!, Wo!] }), { perm: [1, 0, 2, 3] });
}

/** A weight (Co, Ci/groups, kh, kw) as a matrix for each group, (groups, Co/groups, Ci/groups · kh · kw). */
export function weightMatrix(weight: Node, groups: number): Node {
  const [Co, inner, kh, kw] = weight.shape as [number, number, number, number];
  return reshape(weight, { shape: [groups, Co / groups, inner * kh * kw] });
}

function kernelElements([kh, kw]: readonly number[]): [number, number][] {
  return Array.from({ length: kh! * kw! }, (_, e) => [Math.floor(e / kw!), e % kw!]);
}

/** The first element that a kernel element sees along an axis, and the step to the next. */
interface Steps {
  readonly start: number;
  readonly step: number;
}

function stepsOf(element: readonly number[], axis: 0 | 1, { stride, dilation }: ConvAttrs): Steps {
  return { start: element[axis]! * dilation[axis]!, step: stride[axis]! };
}

function padBoth(x: Node, [ph, pw]: readonly number[]): Node {
  const rows = ph === 0 ? x : pad(x, { axis: 2, before: ph!, after: ph! });
  return pw === 0 ? rows : pad(rows, { axis: 3, before: pw!, after: pw! });
}

/** Elements start, start + step … (`count` of them) along `axis`. */
function every(x: Node, axis: number, count: number, { start, step }: Steps): Node {
  const span = (count - 1) * step + 1;
  const range = slice(x, { axis, start, end: start + span });
  if (step === 1) return range;
  const whole = pad(range, { axis, before: 0, after: step - 1 });
  const split = reshape(whole, { shape: x.shape.toSpliced(axis, 1, count, step) });
  const first = slice(split, { axis: axis + 1, start: 0, end: 1 });
  return reshape(first, { shape: x.shape.with(axis, count) });
}

/** The adjoint of `every`: zeros of `size` along `axis` but for the elements start, start + step … */
function spread(x: Node, axis: number, size: number, { start, step }: Steps): Node {
  const count = x.shape[axis]!;
  const span = (count - 1) * step + 1;
  let range = x;
  if (step > 1) {
    const split = reshape(x, { shape: x.shape.toSpliced(axis, 1, count, 1) });
    const padded = pad(split, { axis: axis + 1, before: 0, after: step - 1 });
    const whole = reshape(padded, { shape: x.shape.with(axis, count * step) });
    range = slice(whole, { axis, start: 0, end: span });
  }
  return pad(range, { axis, before: start, after: size - start - span });
}
