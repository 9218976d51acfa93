import { tensor } from "../tensor/tensor.ts";
import type { Batch, Window } from "./setup.ts";

/** This process among those that train together. */
export interface Rank {
  /** From 0; 0 alone writes files and prints. */
  readonly rank: number;
  readonly size: number;
}

/**
 * This process's share of each window: every `size`-th batch, from number `rank` on. Loss weights are of the whole
 * window, so losses and gradients of all shares add up to its own. A share without a batch is one that weighs nothing.
 */
export async function* shareOf(
  windows: AsyncIterable<Window>,
  { rank, size }: Rank,
): AsyncGenerator<Window> {
  for await (const window of windows) {
    const numbers = window.batches.map((_, i) => i).filter((i) => i % size === rank);
    const batches = numbers.map((i) => window.batches[i]!);
    yield batches.length > 0
      ? { ...window, batches, numbers }
      : { ...window, batches: window.batches.slice(0, 1).map(weightless), numbers: [0] };
  }
}

function weightless(batch: Batch): Batch {
  const weights = batch["loss_weights"]!;
  return {
    ...batch,
    loss_weights: tensor("f32", weights.shape, new Float32Array(weights.data.length)),
  };
}
