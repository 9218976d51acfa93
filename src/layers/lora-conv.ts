import { add } from "../ops/add.ts";
import { conv1d } from "../ops/conv1d.ts";
import { conv2d } from "../ops/conv2d.ts";
import { shapeError } from "../ops/define.ts";
import { reshape } from "../ops/reshape.ts";
import { checkOptionNames, type LayerOptions } from "./layer-options.ts";
import { LoraLayer } from "./lora-layer.ts";

/** One number for both axes, or [height, width]. */
export type Pair = number | readonly [number, number];

/** Options of `LoraConv1d`; `S` is the type of a size. */
export interface LoraConvOptions<S> extends LayerOptions {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelSize: S;
  readonly stride?: S;
  /** Zeros on both sides. */
  readonly padding?: S;
  readonly dilation?: S;
  readonly groups?: number;
}

const SIZES: readonly (keyof LoraConvOptions<Pair>)[] = [
  ...([
    "inChannels",
    "outChannels",
    "kernelSize",
    "stride",
    "padding",
    "dilation",
    "groups",
  ] as const),
];

/** Convolution of images x (B, in, H, W) by a frozen weight (out, in/groups, kh, kw), plus A (r, in, kh, kw) and B (out, r/groups, 1, 1). */
export class LoraConv2d extends LoraLayer {
  constructor(options: LoraConvOptions<Pair>) {
    checkOptionNames(options, SIZES);
    const { inChannels, outChannels, groups = 1 } = options;
    const kernel = pair(options.kernelSize);
    const attrs = {
      stride: pair(options.stride ?? 1),
      padding: pair(options.padding ?? 0),
      dilation: pair(options.dilation ?? 1),
      groups,
    };
    super(
      {
        shape: { kind: "conv2d", inFeatures: inChannels, outFeatures: outChannels, kernel, groups },
        weightShape: [outChannels, inChannels / groups, ...kernel],
        build(x, weight, bias) {
          if (x.shape.length !== 4)
            throw shapeError("LoraConv2d", `x (B, ${inChannels}, H, W)`, { x: x.shape });
          const y = conv2d(x, weight, attrs);
          return bias ? add(y, reshape(bias, { shape: [1, outChannels, 1, 1] })) : y;
        },
      },
      options,
    );
  }
}

/** Convolution of lines x (B, in, L) by a frozen weight (out, in/groups, k), plus A (r, in, k) and B (out, r/groups, 1). */
export class LoraConv1d extends LoraLayer {
  constructor(options: LoraConvOptions<number>) {
    checkOptionNames(options, SIZES);
    const { inChannels, outChannels, kernelSize, groups = 1 } = options;
    const { stride = 1, padding = 0, dilation = 1 } = options;
    const kernel = [kernelSize];
    super(
      {
        shape: { kind: "conv1d", inFeatures: inChannels, outFeatures: outChannels, kernel, groups },
        weightShape: [outChannels, inChannels / groups, kernelSize],
        build(x, weight, bias) {
          if (x.shape.length !== 3)
            throw shapeError("LoraConv1d", `x (B, ${inChannels}, L)`, { x: x.shape });
          const y = conv1d(x, weight, { stride, padding, dilation, groups });
          return bias ? add(y, reshape(bias, { shape: [1, outChannels, 1] })) : y;
        },
      },
      options,
    );
  }
}

function pair(size: Pair): readonly [number, number] {
  return typeof size === "number" ? [size, size] : size;
}
