import type { Engine, Program } from "../backends/backend.ts";
import { keptPrograms } from "../backends/kept-programs.ts";
import { LorikeetError } from "../errors.ts";
import type { Graph } from "../ir/graph.ts";
import type { Batch } from "./setup.ts";

/** Compiled steps by the sizes of their batch. Once one does not fit the GPU, this and later ones are `leanGraphFor`'s. */
export function programCache(
  engine: Engine,
  graphFor: (batch: Batch) => Graph,
  leanGraphFor?: (batch: Batch) => Graph,
): {
  get: (batch: Batch) => Promise<Program>;
  isLean: () => boolean;
  dispose: () => Promise<void>;
} {
  const programs = keptPrograms();
  let isLean = false;
  const compile = async (batch: Batch): Promise<Program> => {
    if (!leanGraphFor || isLean) return engine.compile((leanGraphFor ?? graphFor)(batch));
    try {
      return await engine.compile(graphFor(batch));
    } catch (error) {
      if (!(error instanceof LorikeetError && error.code === "cuda-memory")) throw error;
      isLean = true;
      return engine.compile(leanGraphFor(batch));
    }
  };
  return {
    get(batch) {
      return programs.get(sizesOf(batch), () => compile(batch));
    },
    isLean: () => isLean,
    dispose: programs.dispose,
  };
}

/** Names and shapes of what `batch` holds: what its program is made for. */
export function sizesOf(batch: Batch): string {
  const sizes = Object.entries(batch).map(([name, { shape }]) => `${name} ${shape.join()}`);
  return sizes.sort().join("; ");
}
