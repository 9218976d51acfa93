import type { Engine } from "../backends/backend.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { forwardGraph, type TrainPlan } from "../train/plan.ts";
import { tokenFeeds } from "./feeds.ts";

/** Logits, f32 [batch, longest row, vocabulary], of rows of ids; `feeds` are the plan's inputs besides the tokens. */
export async function logitsOf(
  engine: Engine,
  plan: TrainPlan,
  rows: readonly (readonly number[])[],
  feeds: Readonly<Record<string, Tensor>> = {},
): Promise<Tensor> {
  const [batch, length] = [rows.length, Math.max(...rows.map((row) => row.length))];
  const program = await engine.compile(forwardGraph(plan, { batch, length }));
  const { logits } = await program.run({ ...tokenFeeds(rows, length), ...feeds });
  await program.dispose();
  return tensor("f32", [batch, length, logits!.shape.at(-1)!], toFloat32(logits!));
}
