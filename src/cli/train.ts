import { type Command, Option } from "commander";
import { DIFFUSERS_FILE } from "../adapter/formats/diffusers.ts";
import { loadModel } from "../api/load-model.ts";
import type { RunSize } from "../api/run-size.ts";
import { startRun } from "../api/train.ts";
import type { ResolvedRun } from "../api/train-options.ts";
import { formatDuration } from "../host/run-files/run-numbers.ts";
import { loraOfConfig } from "../host/lora-settings.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { isList, trainFlags } from "../host/train-config-docs.ts";
import { type RawConfig, readFlag, readTrainConfig } from "../host/train-config-read.ts";
import { fieldDefault } from "../host/train-fields.ts";
import type { EndEvent, TrainEvent } from "../train/events.ts";
import { answersTable } from "./answers-table.ts";
import { type CliContext, EXIT_CODES } from "./context.ts";
import { showDownload } from "./download.ts";
import { withInterrupt } from "./interrupt.ts";
import { showProgress } from "./progress.ts";
import { showRows } from "./rows-progress.ts";
import { sizeLine } from "./size-line.ts";

const EXAMPLES = `
Examples:
  lorikeet train --data chats.jsonl
  lorikeet train --model HuggingFaceTB/SmolLM2-135M-Instruct --data chats.jsonl --r 16 --num-train-epochs 3
  lorikeet train config.yaml --learning-rate 1e-4
  lorikeet train config.yaml --resume
  lorikeet train --task text-to-image --model stable-diffusion-v1-5 --data photos --learning-rate 1e-4`;

/** `lorikeet train`: fine-tunes a model with LoRA, from a YAML file or flags. */
export function register(command: Command, context: CliContext): void {
  command.argument("[config]", "YAML or JSON file of settings (docs/config.md); flags win over it");
  for (const { key, flags, description, group, isSwitch } of trainFlags()) {
    const section = command.optionsGroup(`${group}:`);
    if (isList(key))
      section.option(flags, description, (text: string, before?: unknown[]) => [...(before ?? []), ...list(readFlag(key, text))]); // prettier-ignore
    else section.option(flags, description);
    if (isSwitch) command.addOption(offSwitch(flags, fieldDefault(key) === true));
  }
  command
    .optionsGroup("Output:")
    .option("--json", "print every event as a line of JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (file: string | undefined, given: Record<string, unknown>) => {
      const config = await readTrainConfig({ file, flags: flagsOf(command, given) });
      await runTraining(config, context, { json: given["json"] === true });
    });
}

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value]);

/** `--no-report` for `--report`; shown only where it changes the default. */
function offSwitch(flags: string, isOn: boolean): Option {
  return new Option(flags.replace(/^--/, "--no-"), `Turn ${flags} off.`).hideHelp(!isOn);
}

/** Trains as `config` says and shows what happens; the exit status says whether it was interrupted. */
export async function runTraining(
  config: TrainConfig,
  context: CliContext,
  { json = false }: { json?: boolean } = {},
): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  const progress = showProgress(context.err);
  const rows = showRows(context.err);
  await withInterrupt(async (signal) => {
    const onRows = (count: number): void => {
      if (signal.aborted) process.exit(EXIT_CODES.interrupted); // there is nothing to save yet
      rows.read(count);
    };
    const onStart = (size: RunSize): void => {
      rows.end();
      context.err.write(`${sizeLine(size)}\n`);
    };
    const run = {
      config,
      lora: loraOfConfig(config),
      outputDir: config.output_dir,
      signal,
      onRows,
      ...(!json && { onStart }),
    };
    const { events: happening, dispose } = await startTask(run, context);
    try {
      for await (const event of happening) {
        rows.end();
        events.push(event);
        if (json) context.out.write(`${JSON.stringify(event)}\n`);
        else progress.show(event);
      }
    } finally {
      rows.end();
      progress.stop();
      await dispose();
    }
  });
  const end = events.find((event) => event.type === "end");
  if (end?.reason === "interrupted") context.exitCode = EXIT_CODES.interrupted;
  if (!json) context.out.write(summary(config, events, columnsOf(context)));
  return events;
}

/** The run that `run.config.task` asks for. */
async function startTask(
  run: ResolvedRun,
  { err }: CliContext,
): Promise<{ events: AsyncIterable<TrainEvent>; dispose: () => Promise<void> }> {
  const { config } = run;
  if (config.task === "text-to-image") {
    const { startImageRun } = await import("../api/train-images.ts");
    const { loadPipeline } = await import("../api/image-pipeline.ts");
    const pipeline = await loadPipeline(config.model, { onDownload: showDownload(err) });
    const events = startImageRun(pipeline, run);
    return { events, dispose: () => Promise.resolve() };
  }
  const model = await loadModel(config.model, { onDownload: showDownload(err) });
  return { events: startRun(model, run), dispose: () => model.dispose() };
}

/** The flags that were given, as settings. */
function flagsOf(command: Command, given: Record<string, unknown>): RawConfig {
  const settings: Record<string, unknown> = {};
  for (const { key } of trainFlags()) {
    const name = key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
    if (command.getOptionValueSource(name) !== "cli") continue;
    const value = given[name];
    settings[key] = typeof value === "string" ? readFlag(key, value) : value;
  }
  return settings;
}

function summary(config: TrainConfig, events: readonly TrainEvent[], width: number): string {
  const samples = events.filter((event) => event.type === "sample");
  const answers = samples.length === 0 ? "" : `${answersTable(samples, width)}\n\n`;
  const end = events.find((event) => event.type === "end");
  if (!end) return "";
  const file = config.task === "text-to-image" ? DIFFUSERS_FILE : "adapter_model.safetensors";
  const where = config.full
    ? `model:   ${config.output_dir}/model\n`
    : `adapter: ${config.output_dir}/${file}\n`;
  const report = config.report ? `report:  ${config.output_dir}/report.html\n` : "";
  const resume = end.reason === "interrupted" ? "Interrupted; continue with --resume.\n" : "";
  const done = `${end.step} steps in ${formatDuration(end.seconds)}\n`;
  return `\n${answers}${done}${bestLine(config, end)}${where}${report}${resume}`;
}

/** Which evaluation was the best, and whether the adapter is of that step. */
function bestLine(config: TrainConfig, { reason, best }: EndEvent): string {
  if (!best) return "";
  const stopped = reason === "early-stop" ? "stopped early: " : "";
  const kept = config.load_best_model_at_end ? ", whose adapter is kept" : "";
  return `${stopped}lowest evaluation loss ${best.loss.toFixed(3)} at step ${best.step}${kept}\n`;
}

/** Columns of the terminal that results go to. */
function columnsOf({ out }: CliContext): number {
  return "columns" in out && typeof out.columns === "number" ? out.columns : 100;
}
