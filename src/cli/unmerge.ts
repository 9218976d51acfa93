import type { Command } from "commander";
import { loadModel, type LoadOptions } from "../api/load-model.ts";
import { unmerge, type UnmergeResult } from "../api/unmerge.ts";
import { loadAnyAdapter } from "../host/adapter-formats.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";
import { isImageMerge, unmergeImage } from "./merge-image.ts";

const EXAMPLES = `
Examples:
  lorikeet unmerge --model merged --adapter out -o base-again
  lorikeet unmerge --model merged --adapter out -o base-again --base storyteller-6m`;

interface Flags {
  readonly model: string;
  readonly adapter: string;
  readonly output: string;
  readonly base?: string;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** `lorikeet unmerge`: takes an adapter out of a merged model again. */
export function register(command: Command, { out, err }: CliContext): void {
  command
    .requiredOption("-m, --model <ref>", "merged model")
    .requiredOption("-a, --adapter <folder>", "adapter that was merged into it")
    .requiredOption("-o, --output <folder>", "new folder for the base")
    .option("--base <ref>", "original base, to compare the result with")
    .option("--overwrite", "replace what is in the output folder")
    .option("--json", "print what was written as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: Flags) => {
      const { output, base, json } = flags;
      const options = { onDownload: showDownload(err) };
      const result = (await isImageMerge(flags, options))
        ? await unmergeImage(flags, options)
        : await unmergeText(flags, options);
      if (json) return void out.write(`${JSON.stringify(result)}\n`);
      const { errors } = result;
      const bound = Math.max(...errors.map((error) => error.bound));
      out.write(`${output}: ${errors.length} weights unmerged; each element is within ${bound.toExponential(1)} of the base's\n`); // prettier-ignore
      if (base === undefined) return;
      const difference = Math.max(...errors.map((error) => error.difference ?? 0));
      const changed = errors.reduce((sum, error) => sum + (error.changed ?? 0), 0);
      out.write(`compared with ${base}: ${changed} elements differ, by ${difference.toExponential(1)} at most\n`); // prettier-ignore
    });
}

async function unmergeText(
  { model, adapter, output, base, overwrite }: Flags,
  options: LoadOptions,
): Promise<UnmergeResult> {
  const merged = await loadModel(model, options);
  return unmerge(merged, await loadAnyAdapter(adapter, undefined, options), output, {
    ...(base !== undefined && { base: await loadModel(base, options) }),
    ...(overwrite && { overwrite }),
  });
}
