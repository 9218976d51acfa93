import type { Engine } from "../backends/backend.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { embeddingGraph, forwardGraph, type TrainPlan } from "../train/plan.ts";
import { isEncoder } from "../train/text-model.ts";
import { encoderFeeds, tokenFeeds } from "./feeds.ts";

/**
 * Logits, f32 [batch, longest row, vocabulary], or [batch, labels] of a classifier, of rows of ids; `feeds` are the
 * plan's inputs besides the tokens.
 */
export async function logitsOf(
  engine: Engine,
  plan: TrainPlan,
  rows: readonly (readonly number[])[],
  feeds: Readonly<Record<string, Tensor>> = {},
): Promise<Tensor> {
  const [batch, length] = [rows.length, Math.max(...rows.map((row) => row.length))];
  const program = await engine.compile(forwardGraph(plan, { batch, length }));
  const isClassifier = isEncoder(plan.config);
  const own = isClassifier ? encoderFeeds(rows) : tokenFeeds(rows, length);
  const { logits } = await program.run({ ...own, ...feeds });
  await program.dispose();
  if (isClassifier) return logits!;
  return tensor("f32", [batch, length, logits!.shape.at(-1)!], toFloat32(logits!));
}

/**
 * Mean hidden states, f32 [batch, hidden], of rows of ids for an encoder.
 * @throws LorikeetError `unsupported-architecture` for a model that is no encoder
 */
export async function embeddingsOf(
  engine: Engine,
  plan: TrainPlan,
  rows: readonly (readonly number[])[],
): Promise<Tensor> {
  const [batch, length] = [rows.length, Math.max(...rows.map((row) => row.length))];
  const program = await engine.compile(embeddingGraph(plan, { batch, length }));
  const { embeddings } = await program.run(encoderFeeds(rows));
  await program.dispose();
  return embeddings!;
}
