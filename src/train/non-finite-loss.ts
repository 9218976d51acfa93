import { LorikeetError } from "../errors.ts";
import type { RunState, TrainSetup, Window } from "./setup.ts";

/** Rows that are named. */
const NAMED = 8;

/** The rows of `window`'s batches with `numbers`, as messages have them. */
export function rowsIn(
  window: Window,
  numbers: readonly number[] = window.numbers ?? [...window.batches.keys()],
): string {
  const rows = [...new Set(numbers.flatMap((number) => window.rows?.[number] ?? []))];
  if (rows.length === 0) return "";
  const rest = rows.length > NAMED ? ` and ${rows.length - NAMED} more` : "";
  return ` (${rows.slice(0, NAMED).join(", ")}${rest})`;
}

/**
 * Ends a run whose loss or gradients are no finite numbers, after saving the last good state.
 * @throws LorikeetError `non-finite-loss`, always
 */
export async function failOn(setup: TrainSetup, state: RunState, wanted: string): Promise<never> {
  await setup.engine.clearGradients();
  const path = state.step > 0 ? await setup.save(state, "end") : undefined;
  throw new LorikeetError("non-finite-loss", `Expected ${wanted}`, {
    hint: `Lower the learning rate or max_grad_norm, or look for broken rows at that place in the data.${
      path ? ` The state of step ${state.step} is kept in ${path}.` : ""
    }`,
  });
}
