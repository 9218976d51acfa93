import type { Node } from "../../src/ir/node.ts";
import type { OpCase, Rules } from "../../src/ir/rules.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { Random } from "../../src/tensor/random.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { input } from "../../src/ops/leaf.ts";
import { operators } from "../../src/ops/registry.ts";

/** One case of an op as a graph: the op on fed inputs, and values to feed. */
export interface BuiltCase {
  readonly node: Node;
  readonly leaves: readonly Node[];
  readonly floats: readonly Node[];
  readonly feeds: Record<string, Tensor>;
}

/** The graph and random (or known) inputs of `test` for the op of `rules`. */
export function buildCase(rules: Rules, test: OpCase, seed = 1): BuiltCase {
  const random = new Random(seed);
  const feeds: Record<string, Tensor> = {};
  const leaves: Node[] = [];
  const one = (name: string, key: string, shape: Shape): Node => {
    const count = test.ids?.[key];
    const [low, high] = test.range?.[key] ?? [-1.5, 1.5];
    const known = test.known?.inputs[key];
    const draw = (): number =>
      count === undefined ? low + (high - low) * random.uniform() : random.integer(count);
    const data = Float64Array.from({ length: sizeOf(shape) }, (_, i) => known?.[i] ?? draw());
    feeds[name] = tensor("f64", shape, data);
    const leaf = input(name, shape, count === undefined ? "f32" : "i64");
    leaves.push(leaf);
    return leaf;
  };
  const args = rules.inputs.flatMap((slot): (Node | readonly Node[] | undefined)[] => {
    const key = slot.replace(/^\.\.\.|\?$/g, "");
    const shape = test.shapes[key];
    if (shape === undefined) return [undefined];
    if (slot.startsWith("..."))
      return [(shape as readonly Shape[]).map((part, i) => one(`${key}${i}`, key, part))];
    return [one(key, key, shape as Shape)];
  });
  const build = operators[rules.name] as unknown as (...args: unknown[]) => Node;
  const node = build(...args, test.attrs ?? {});
  const floats = leaves.filter((leaf) => leaf.dtype === "f32" && !test.fixed?.includes(leaf.name!));
  return { node, leaves, floats, feeds };
}
