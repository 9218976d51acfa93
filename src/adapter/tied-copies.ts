import { tensor, type Tensor } from "../tensor/tensor.ts";
import { PEFT_PREFIX, peftKey } from "./adapter.ts";
import { type AdapterBase, tiedEmbedding } from "./adapter-base.ts";
import type { LoraConfig } from "./lora-config.ts";

/**
 * What PEFT also writes for a head that stays tied to its embedding: a copy of the trained matrix, or the embedding's
 * A and B transposed, as a linear layer has them.
 */
export function tiedCopies(
  { ensureWeightTying }: LoraConfig,
  tensors: ReadonlyMap<string, Tensor>,
  base: Pick<AdapterBase, "layers" | "family">,
): Map<string, Tensor> {
  const copies = new Map<string, Tensor>();
  const embedding = ensureWeightTying ? tiedEmbedding(base) : undefined;
  if (embedding === undefined) return copies;
  const { head } = base.family;
  const whole = tensors.get(`${PEFT_PREFIX}${embedding}.weight`);
  const a = tensors.get(peftKey(embedding, "lora_embedding_A"));
  const b = tensors.get(peftKey(embedding, "lora_embedding_B"));
  if (whole) copies.set(`${PEFT_PREFIX}${head}.weight`, whole);
  if (a && b) {
    copies.set(peftKey(head, "lora_A.weight"), transposed(b));
    copies.set(peftKey(head, "lora_B.weight"), transposed(a));
  }
  return copies;
}

function transposed({ dtype, shape, data }: Tensor): Tensor {
  const [rows, columns] = shape as [number, number];
  const out = data.slice();
  for (let i = 0; i < data.length; i++)
    out[(i % columns) * rows + Math.floor(i / columns)] = data[i]!;
  return tensor(dtype, [columns, rows], out);
}
