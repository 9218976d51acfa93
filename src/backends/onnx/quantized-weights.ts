import { parsePart, partName } from "../../passes/quantize.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { encodeInt8Rows, encodeNf4 } from "../../tensor/quantize.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { WeightSource } from "../backend.ts";

/** Encodes weights on demand; both parts of one are made by reading it once. */
export class QuantizedWeights {
  private readonly source: WeightSource;
  private readonly waiting = new Map<string, Promise<Tensor>>();

  constructor(source: WeightSource) {
    this.source = source;
  }

  /** How to compute the tensor called `name` when it is part of a quantized weight, else undefined. */
  compute(name: string): (() => Promise<Tensor>) | undefined {
    const parsed = parsePart(name);
    return parsed && (() => this.part(name, parsed.weight));
  }

  private async part(name: string, weight: string): Promise<Tensor> {
    const known = this.waiting.get(name);
    if (known) {
      this.waiting.delete(name); // each part is taken once, and need not be kept then
      return known;
    }
    const isInt8 = /#(int8|scale)$/.test(name);
    const encoded = this.source.read(weight).then(isInt8 ? int8Parts : nf4Parts);
    for (const part of isInt8 ? (["int8", "scale"] as const) : (["nf4", "absmax"] as const)) {
      const own = partName(weight, part);
      if (own === name) continue;
      const other = encoded.then((parts) => parts[part]!);
      other.catch(() => undefined); // reported by the part that was asked for first
      this.waiting.set(own, other);
    }
    return (await encoded)[parsePart(name)!.part]!;
  }
}

function int8Parts(weight: Tensor): Record<string, Tensor> {
  const rows = weight.shape[0]!;
  const { codes, scales } = encodeInt8Rows(toFloat32(weight), rows);
  return { int8: tensor("i8", weight.shape, codes), scale: tensor("f32", [rows, 1], scales) };
}

function nf4Parts(weight: Tensor): Record<string, Tensor> {
  const { codes, absmax } = encodeNf4(toFloat32(weight));
  return {
    nf4: tensor("u8", [codes.length], codes),
    absmax: tensor("f32", [absmax.length], absmax),
  };
}
