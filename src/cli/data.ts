import type { Command } from "commander";
import { loadModel } from "../api/load-model.ts";
import { checkTrainConfig } from "../host/train-config-read.ts";
import { contextOf } from "../models/config.ts";
import type { CliContext } from "./context.ts";
import { dataPreview } from "./data-preview.ts";
import { showDownload } from "./download.ts";
import { numberIn, wholeFrom1 } from "./generation-options.ts";
import { showRows } from "./rows-progress.ts";

const EXAMPLES = `
Examples:
  lorikeet data preview chats.jsonl
  lorikeet data preview chats.jsonl --packing           rows as they are packed, sample by sample
  lorikeet data preview chats.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct --count 5 --train-on all
  cat chats.jsonl | lorikeet data preview - --json`;

interface Flags {
  readonly model: string;
  readonly count: number;
  readonly limit?: number;
  readonly trainOn: string;
  readonly maxLength: number;
  readonly packing?: boolean;
  readonly skipBadRows?: boolean;
  readonly json?: boolean;
}

/** `lorikeet data …`: what training will read. */
export function register(command: Command, context: CliContext): void {
  command
    .command("preview")
    .description("show samples as the model will read them, with the trained tokens marked")
    .argument("<paths...>", "files or folders; - reads standard input")
    .option("-m, --model <model>", "whose tokenizer and chat template to use", "storyteller-6m")
    .option(
      "-n, --count <number>",
      "samples to show; with --packing, rows",
      numberIn(0, { whole: true }),
      3,
    )
    .option("--limit <number>", "rows to read; default: all", wholeFrom1)
    .option("--train-on <value>", "completion, prompt or all", "completion")
    .option("--max-length <number>", "longest sample in tokens", numberIn(2, { whole: true }), 1024)
    .option("--packing", "several samples in one row, as train packs them in its first pass")
    .option("--skip-bad-rows", "leave out rows that cannot be read, and count them")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES)
    .action((paths: string[], flags: Flags) => preview(paths, flags, context));
  command.addHelpText("after", EXAMPLES);
}

async function preview(paths: string[], flags: Flags, { out, err }: CliContext): Promise<void> {
  const config = checkTrainConfig({
    data: paths,
    train_on: flags.trainOn,
    max_length: flags.maxLength,
    packing: flags.packing ?? false,
  });
  const model = await loadModel(flags.model, { onDownload: showDownload(err) });
  const rows = showRows(err);
  try {
    const { tokenizer, chatTemplate: template } = model;
    const options = {
      paths,
      tokenizer,
      template,
      trainOn: config.train_on,
      maxLength: config.max_length,
      contextLength: contextOf(model.checkpoint.config),
      packing: config.packing,
      seed: config.seed,
      skipBadRows: flags.skipBadRows ?? false,
      count: flags.count,
      limit: flags.limit,
      json: flags.json ?? false,
      onProgress: rows.read,
    };
    await dataPreview(options, (text) => {
      rows.end();
      out.write(text);
    });
  } finally {
    rows.end();
    await model.dispose();
  }
}
