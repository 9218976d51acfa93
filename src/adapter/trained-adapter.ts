import type { Tensor } from "../tensor/tensor.ts";
import type { Adapter } from "./adapter.ts";
import type { AdapterBase } from "./adapter-base.ts";
import { parametersOf } from "./attach.ts";
import { tiedCopies } from "./tied-copies.ts";

/**
 * `start` with the values that its parameters have now, f32, under the same keys.
 * @param trained the trainable parameters, and how to read one
 */
export async function trainedAdapter(
  start: Adapter,
  base: Pick<AdapterBase, "layers" | "family">,
  trained: {
    readonly names: ReadonlySet<string>;
    readonly read: (name: string) => Promise<Tensor>;
  },
): Promise<Adapter> {
  const parameters = parametersOf(start, base.layers, base.family);
  const tensors = new Map<string, Tensor>();
  for (const [key, value] of start.tensors) {
    const name = parameters.get(key);
    const isTrained = name !== undefined && trained.names.has(name);
    tensors.set(key, isTrained ? await trained.read(name) : value);
  }
  for (const [key, value] of tiedCopies(start.config, tensors, base)) tensors.set(key, value);
  // in one order, whether it was made or read from a file
  const sorted = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1));
  return { ...start, tensors: new Map(sorted) };
}
