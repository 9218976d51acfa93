import { type Graph, rootsOf, topological } from "../ir/graph.ts";
import { sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";

/** Shapes of the caches that `graph` reads, by name. */
export function cacheShapesOf(graph: Graph): Record<string, Shape> {
  const inputs = topological(rootsOf(graph)).filter(
    ({ op, name }) => op.name === "input" && name! in (graph.caches ?? {}),
  );
  return Object.fromEntries(inputs.map(({ name, shape }) => [name!, shape]));
}

/** Key/value caches (B, P, …) that programs read and extend, in memory of the engine's thread. */
export class Caches {
  private readonly byName = new Map<string, Tensor>();

  /** The caches by name, each in the shape that a program reads: cut, or filled up with zeros, along axis 1. */
  feeds(shapes: Readonly<Record<string, Shape>>): Record<string, Tensor> {
    for (const [name, shape] of Object.entries(shapes)) {
      const known = this.byName.get(name);
      if (known && sameShape(known.shape, shape)) continue;
      const fitted = tensor(known?.dtype ?? "f32", shape);
      if (known)
        copyRows(known, fitted, { from: 0, to: 0, rows: Math.min(known.shape[1]!, shape[1]!) });
      this.byName.set(name, fitted);
    }
    return Object.fromEntries(Object.keys(shapes).map((name) => [name, this.byName.get(name)!]));
  }

  /** Writes `fresh` (B, T, …) into the cache from slot `offset` on; it becomes the cache when there was none to read. */
  store(name: string, fresh: Tensor, offset: number): void {
    const known = this.byName.get(name);
    const end = offset + fresh.shape[1]!;
    if (!known || offset === 0) this.byName.set(name, fresh);
    else if (end > known.shape[1]!) {
      const grown = tensor(known.dtype, known.shape.with(1, end));
      copyRows(known, grown, { from: 0, to: 0, rows: known.shape[1]! });
      copyRows(fresh, grown, { from: 0, to: offset, rows: fresh.shape[1]! });
      this.byName.set(name, grown);
    } else copyRows(fresh, known, { from: 0, to: offset, rows: fresh.shape[1]! });
  }
}

function copyRows(
  source: Tensor,
  target: Tensor,
  { from, to, rows }: { from: number; to: number; rows: number },
): void {
  const inner = sizeOf(source.shape.slice(2));
  const [P, Q] = [source.shape[1]!, target.shape[1]!];
  for (let b = 0; b < Math.min(source.shape[0]!, target.shape[0]!); b++) {
    const start = (b * P + from) * inner;
    target.data.set(
      source.data.subarray(start, start + rows * inner) as never,
      (b * Q + to) * inner,
    );
  }
}
