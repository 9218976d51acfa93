import type { WeightSource } from "../backends/backend.ts";
import { nearest } from "../errors.ts";
import { faultsError, quoteName } from "../formats/faults.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { isFrozen } from "../ops/leaf.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";

const HINT =
  "Check that config.json and weights belong to the same model, and download what is missing.";

/**
 * Makes sure that `weights` holds what the model `roots` reads, in the shapes that it expects.
 * @throws LorikeetError `missing-weight` or `weight-shape`, listing every fault
 */
export function checkWeights(
  weights: Pick<WeightSource, "names" | "get">,
  roots: readonly Node[],
  model: string,
): void {
  const present = new Set(weights.names);
  const faults: string[] = [];
  let missing = 0;
  for (const node of topological(roots).filter(isFrozen)) {
    const name = node.name!;
    if (!present.has(name)) {
      missing++;
      const near = nearest(name, present, 1);
      faults.push(`${quoteName(name)} is missing${near.length > 0 ? `; near is ${near[0]!}` : ""}`);
      continue;
    }
    const { shape } = weights.get(name);
    if (!sameShape(shape, node.shape))
      faults.push(
        `${quoteName(name)} is ${formatShape(shape)}, config.json asks for ${formatShape(node.shape)}`,
      );
  }
  if (faults.length === 0) return;
  const expected = `the weights of ${model} to be those that its config.json describes`;
  throw missing > 0
    ? faultsError("missing-weight", expected, faults, HINT)
    : faultsError("weight-shape", expected, faults, HINT);
}

/**
 * Makes sure that the weights have no layers beyond those that `roots` reads: the model would run without them, wrongly.
 * @throws LorikeetError `unexpected-weight`
 */
export function refuseFurtherLayers(
  { names }: Pick<WeightSource, "names">,
  roots: readonly Node[],
  model: string,
): void {
  const read = new Set(topological(roots).filter(isFrozen).map((node) => node.name!)); // prettier-ignore
  const kindOf = (name: string): string => name.replace(/\.\d+\./g, ".*.");
  const kinds = new Set([...read].filter((name) => /\.\d+\./.test(name)).map(kindOf));
  const further = names.filter((name) => !read.has(name) && kinds.has(kindOf(name)));
  if (further.length === 0) return;
  throw faultsError(
    "unexpected-weight",
    `the weights of ${model} to have the layers that its config.json describes and no more`,
    further.map((name) => `${quoteName(name)} is of no layer`),
    HINT,
  );
}
