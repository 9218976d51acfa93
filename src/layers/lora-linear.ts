import { add } from "../ops/add.ts";
import { linear } from "../ops/linear.ts";
import { reshape } from "../ops/reshape.ts";
import { sizeOf } from "../tensor/shape.ts";
import { checkOptionNames, type LayerOptions } from "./layer-options.ts";
import { LoraLayer } from "./lora-layer.ts";
import { shapeError } from "../ops/define.ts";

/** Options of `LoraLinear`. */
export interface LoraLinearOptions extends LayerOptions {
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** y = x·Wᵀ + b + scale · x·Aᵀ·Bᵀ on x (…, in), W (out, in) frozen. https://arxiv.org/abs/2106.09685 */
export class LoraLinear extends LoraLayer {
  constructor(options: LoraLinearOptions) {
    checkOptionNames(options, ["inFeatures", "outFeatures"]);
    const { inFeatures, outFeatures } = options;
    super(
      {
        shape: { kind: "linear", inFeatures, outFeatures, kernel: [], groups: 1 },
        weightShape: [outFeatures, inFeatures],
        build(x, weight, bias) {
          if (x.shape.at(-1) !== inFeatures)
            throw shapeError("LoraLinear", `x (…, ${inFeatures})`, { x: x.shape });
          const rows = reshape(x, { shape: [sizeOf(x.shape) / inFeatures, inFeatures] });
          const product = linear(rows, weight);
          const y = bias ? add(product, bias) : product;
          return reshape(y, { shape: [...x.shape.slice(0, -1), outFeatures] });
        },
      },
      options,
    );
  }
}
