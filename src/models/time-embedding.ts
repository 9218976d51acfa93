import type { Node } from "../ir/node.ts";
import { concat } from "../ops/concat.ts";
import { cos } from "../ops/cos.ts";
import { literal } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { silu } from "../ops/silu.ts";
import { sin } from "../ops/sin.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor } from "../tensor/tensor.ts";
import { dense } from "./layers.ts";

/** How numbers are turned into waves. */
export interface WaveConfig {
  /** Features; half are sines, half cosines. */
  readonly features: number;
  /** Cosines first. */
  readonly flipSinToCos: boolean;
  /** Frequencies reach 1/10000 at feature number half − `freqShift`. */
  readonly freqShift: number;
}

/**
 * Sines and cosines of `numbers` (…) at frequencies from 1 to about 1/10000: (count of numbers, features).
 * https://arxiv.org/abs/1706.03762 §3.5
 */
export function waves(numbers: Node, { features, flipSinToCos, freqShift }: WaveConfig): Node {
  const half = features / 2;
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    Math.exp((-Math.log(10000) * i) / (half - freqShift)),
  );
  const column = reshape(numbers, { shape: [sizeOf(numbers.shape), 1] });
  const angles = mul(column, literal(tensor("f32", [1, half], frequencies)));
  const parts = [sin(angles), cos(angles)];
  return concat(flipSinToCos ? parts.reverse() : parts, { axis: 1 });
}

/** linear_2(silu(linear_1(x))) with biases: what a UNet makes of waves. */
export function waveMlp(x: Node, name: string, features: number): Node {
  const inner = silu(dense(x, `${name}.linear_1`, features, { bias: true }));
  return dense(inner, `${name}.linear_2`, features, { bias: true });
}
