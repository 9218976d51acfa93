import type { Node } from "../ir/node.ts";
import { gelu } from "../ops/gelu.ts";
import { quickGelu } from "../ops/quick-gelu.ts";
import { relu } from "../ops/relu.ts";
import { silu } from "../ops/silu.ts";
import { tanh } from "../ops/tanh.ts";
import { type HfConfig, oneOf } from "./config.ts";

const tanhGelu = (x: Node): Node => gelu(x, { approximate: "tanh" });

/** Elementwise functions by their names in `config.json`. */
const activations: Readonly<Record<string, (x: Node) => Node>> = {
  gelu: (x) => gelu(x),
  gelu_python: (x) => gelu(x),
  gelu_new: tanhGelu,
  gelu_fast: tanhGelu,
  gelu_pytorch_tanh: tanhGelu,
  quick_gelu: quickGelu,
  relu,
  silu,
  swish: silu,
  tanh,
};

/**
 * The activation function that `field` of `config` names.
 * @throws LorikeetError `model-config` for a name that is not supported
 */
export function activationOf(config: HfConfig, field: string, fallback: string): (x: Node) => Node {
  return activations[oneOf(config, field, Object.keys(activations), fallback)]!;
}
