import { type Command, InvalidArgumentError } from "commander";
import type { GenerateOptions } from "../api/answer-row.ts";
import { loadModel } from "../api/load-model.ts";
import type { Model } from "../api/model.ts";
import { loadWithBase } from "./adapter-base.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";

/** Options of commands that generate text, as commander parses them. */
export interface GenerationFlags {
  readonly model?: string;
  readonly adapter?: string;
  readonly device: string;
  readonly threads?: number;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly stop?: readonly string[];
  readonly seed: number;
}

const MODEL_OPTION =
  "hub id, folder, .gguf file or storyteller-6m; default: the adapter's base, without one storyteller-6m";

/** Adds the options that `generate` and `chat` share. */
export function addGenerationOptions(command: Command): Command {
  return command
    .option("-m, --model <ref>", MODEL_OPTION)
    .option("-a, --adapter <ref>", "adapter: folder of PEFT or mlx-lm, .gguf file, or hub id")
    .option("--device <name>", "auto, cpu, webgpu, cuda or cuda:N", "auto")
    .option("--threads <n>", "CPU threads; default: one for each physical core", wholeFrom1)
    .option("--max-new-tokens <n>", "tokens to generate at most", wholeFrom1, 256)
    .option("--temperature <t>", "0: always the likeliest token", numberIn(0), 0)
    .option("--top-k <k>", "only the k likeliest tokens; 0: all", numberIn(0, { whole: true }), 0)
    .option(
      "--top-p <p>",
      "only the likeliest tokens that add up to p",
      numberIn(0, { most: 1 }),
      1,
    )
    .option(
      "--min-p <p>",
      "only tokens at least this share as likely as the likeliest",
      numberIn(0, { most: 1 }),
      0,
    ) // prettier-ignore
    .option("--repetition-penalty <x>", "above 1: repeat less", numberIn(0.01), 1)
    .option("--stop <text>", "end at this text; may be given several times", collect)
    .option("--seed <n>", "start of the random choices", numberIn(0, { whole: true }), 0);
}

/** The model, with its adapter, that `flags` name. */
export async function openModel(flags: GenerationFlags, { err }: CliContext): Promise<Model> {
  const { model, device, threads } = flags;
  const options = {
    ...{ device, onNote: (note: string) => err.write(`${note}\n`) },
    onDownload: showDownload(err),
    ...(threads !== undefined && { threads }),
  };
  if (flags.adapter === undefined) return loadModel(model ?? "storyteller-6m", options);
  const { adapter, base } = await loadWithBase(flags.adapter, model, options);
  return base.withAdapter(adapter);
}

/** `flags` as options of `generate`. */
export function generateOptions(flags: GenerationFlags): GenerateOptions {
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, stop, seed } = flags;
  return {
    maxNewTokens,
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    seed,
    ...(stop && { stop }),
  };
}

/** Reads a number from the command line. */
function number(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value))
    throw new InvalidArgumentError("Expected a number.");
  return value;
}

/** Reads numbers from `least` to `most`, only whole ones with `whole`. */
export function numberIn(
  least: number,
  { most = Infinity, whole = false }: { most?: number; whole?: boolean } = {},
): (text: string) => number {
  const kind = whole ? "a whole number" : "a number";
  const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
  return (text) => {
    const value = number(text);
    if (value < least || value > most || (whole && !Number.isInteger(value)))
      throw new InvalidArgumentError(`Expected ${kind} ${range}.`);
    return value;
  };
}

/** Reads a whole number of at least 1. */
export const wholeFrom1: (text: string) => number = numberIn(1, { whole: true });

function collect(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}
