import type { Adapter } from "../adapter/adapter.ts";
import type { WeightSource } from "../backends/backend.ts";
import { packageVersion } from "../host/package-version.ts";
import { recordRun, type RunRecorder } from "../host/run-files/record.ts";
import type { AnswerPair, RunReport } from "../host/run-files/report.ts";
import { sizeOf } from "../tensor/shape.ts";
import { openSession } from "./generate.ts";
import type { Model } from "./model.ts";
import type { ResolvedRun } from "./train-options.ts";

/** Tokens that an answer in the report has at most. */
const ANSWER_TOKENS = 80;

/** Opens the record of a run that writes into a folder; undefined for a run in memory. */
export async function openRecord(
  { config, outputDir }: ResolvedRun,
  resumedStep: number | undefined,
): Promise<RunRecorder | undefined> {
  return outputDir === undefined
    ? undefined
    : recordRun({ ...config, output_dir: outputDir }, resumedStep);
}

/** What `base` and `adapted` answer to `prompts`, each as the question of a chat, greedily. */
export async function compareAnswers(
  base: Model,
  adapted: Model,
  prompts: readonly string[],
): Promise<AnswerPair[]> {
  if (prompts.length === 0) return [];
  const answersOf = async (model: Model): Promise<string[]> => {
    const session = await openSession(model);
    const answers: string[] = [];
    for (const content of prompts) {
      const answer = await session.text([{ role: "user", content }], {
        maxNewTokens: ANSWER_TOKENS,
      });
      answers.push(answer.trim());
    }
    await session.dispose();
    return answers;
  };
  const [plain, tuned] = [await answersOf(base), await answersOf(adapted)];
  return prompts.map((prompt, i) => ({ prompt, base: plain[i]!, adapted: tuned[i]! }));
}

/** What the report says of a trained adapter of `base` beside what the run recorded. */
export function reportOf(
  { name, weights }: { readonly name: string; readonly weights: WeightSource },
  adapter: Adapter,
  shown: Partial<Pick<RunReport, "answers" | "trainedOn">>,
): Omit<RunReport, "config" | "events"> {
  const trained = [...adapter.tensors.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const total = weights.names.reduce((sum, name) => sum + sizeOf(weights.get(name).shape), 0);
  const share = `${((100 * trained) / (total + trained)).toFixed(1)} % of the model`;
  const numbers = [
    { label: "Trained parameters", value: trained.toLocaleString("en"), note: share },
  ];
  return { title: `${name}: LoRA fine-tuning`, answers: [], ...shown, numbers, version: packageVersion() }; // prettier-ignore
}
