import { extname, join } from "node:path";
import { SingleBar } from "cli-progress";
import { type Command, InvalidArgumentError, Option } from "commander";
import { EMBEDDED_IMAGE_MODELS, loadPipeline } from "../api/image-pipeline.ts";
import { openImageSession } from "../api/image-session.ts";
import { imagine, type ImagineOptions } from "../api/imagine.ts";
import { saveImage } from "../api/save-image.ts";
import { SAMPLERS, type SamplerName } from "../diffusion/sampler.ts";
import type { PredictionType } from "../diffusion/scheduler-config.ts";
import { refuseExisting } from "../host/output-folder.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";
import { numberIn, wholeFrom1 } from "./generation-options.ts";
import { type AdapterReference, collectAdapters, readAdapters } from "./image-options.ts";

const [EMBEDDED] = EMBEDDED_IMAGE_MODELS;
const EXAMPLES = `
Examples:
  lorikeet imagine --prompt "a red fox on a blue background" --guidance 3 --out fox.png
  lorikeet imagine --model stable-diffusion-v1-5 --adapter out --prompt "a photo of sks dog" --seed 7
  lorikeet imagine --model sd15.safetensors --adapter style.safetensors:0.8 --adapter out:0.5 \\
      --prompt "a castle" --negative-prompt "blurry" --steps 30 --sampler dpm++ --size 512x768 --count 4 --out castles`;

interface Flags {
  readonly model: string;
  readonly adapter?: readonly AdapterReference[];
  readonly prompt: string;
  readonly negativePrompt?: string;
  readonly steps: number;
  readonly guidance: number;
  readonly seed: number;
  readonly sampler: SamplerName;
  readonly eta: number;
  readonly predictionType?: PredictionType;
  readonly size?: readonly [number, number];
  readonly count: number;
  readonly out: string;
  readonly overwrite?: boolean;
  readonly device: string;
  readonly threads?: number;
  readonly json?: boolean;
}

/** `lorikeet imagine`: makes images from a prompt. */
export function register(command: Command, context: CliContext): void {
  command
    .option(
      "-m, --model <ref>",
      `hub id, diffusers folder, single .safetensors file or ${EMBEDDED!}`,
      EMBEDDED,
    )
    .option(
      "-a, --adapter <ref[:weight]>",
      "adapter of diffusers, kohya or PEFT, or its hub id; may be given several times",
      collectAdapters,
    )
    .requiredOption("-p, --prompt <text>", "what to show")
    .option("-n, --negative-prompt <text>", "what to keep away from")
    .option("--steps <n>", "steps from noise to image", wholeFrom1, 25)
    .option(
      "--guidance <x>",
      "how strongly the prompt is followed; 1: no more than the model does by itself",
      numberIn(0),
      7.5,
    )
    .option(
      "--seed <n>",
      "start of the random choices; further images take the seeds after it",
      numberIn(0, { whole: true }),
      0,
    )
    .addOption(
      new Option("--sampler <name>", "way from noise to image")
        .choices([...SAMPLERS])
        .default(SAMPLERS[0]),
    )
    .option("--eta <x>", "noise that ddim adds at each step, 0 to 1", numberIn(0, { most: 1 }), 0)
    .addOption(
      new Option(
        "--prediction-type <type>",
        "what the model predicts, where its scheduler_config.json is wrong or absent",
      ).choices(["epsilon", "v_prediction", "sample"]),
    )
    .option(
      "--size <WxH>",
      "pixels, multiples of 8; default: what the model was trained on",
      parseSize,
    )
    .option("--count <n>", "number of images", wholeFrom1, 1)
    .option(
      "-o, --out <path>",
      "a .png file (with --count: numbered), or a folder",
      parseOutput,
      "image.png",
    )
    .option("--overwrite", "replace images that are there")
    .option("--device <name>", "auto, cpu, webgpu, cuda or cuda:N", "auto")
    .option("--threads <n>", "CPU threads; default: one for each physical core", wholeFrom1)
    .option("--json", "print one JSON object: path and settings of each image, seconds")
    .addHelpText("after", EXAMPLES)
    .action((flags: Flags) => run(flags, context));
}

async function run(flags: Flags, context: CliContext): Promise<void> {
  const { device, threads, count, seed, json, overwrite } = flags;
  const paths = Array.from({ length: count }, (_, i) => outputPath(flags, i));
  if (!overwrite) for (const path of paths) await refuseExisting(path);
  const onDownload = showDownload(context.err);
  const base = await loadPipeline(flags.model, {
    ...{ device, onDownload },
    ...(threads !== undefined && { threads }),
  });
  const pipeline = base.withAdapters(await readAdapters(base, flags.adapter ?? [], { onDownload }));
  const session = await openImageSession(pipeline);
  const progress = showSteps(context.err, count * flags.steps);
  const images: object[] = [];
  const began = performance.now();
  try {
    for (const [i, path] of paths.entries()) {
      const onStep = (done: number): void => progress.show(i * flags.steps + done);
      const image = await imagine(pipeline, { ...settingsOf(flags), seed: seed + i, onStep }, session); // prettier-ignore
      await saveImage(image, path);
      images.push({ path, ...image.settings });
      if (!json) progress.line(() => context.out.write(`${path}\n`));
    }
  } finally {
    progress.stop();
    await session.dispose();
  }
  const seconds = (performance.now() - began) / 1000;
  if (json) context.out.write(`${JSON.stringify({ images, seconds })}\n`);
}

function settingsOf(flags: Flags): ImagineOptions {
  const { prompt, negativePrompt, steps, guidance, sampler, eta, predictionType, size } = flags;
  return {
    prompt,
    steps,
    guidance,
    sampler,
    eta,
    ...(negativePrompt !== undefined && { negativePrompt }),
    ...(predictionType && { predictionType }),
    ...(size && { width: size[0], height: size[1] }),
  };
}

/** `cat.png`; of several images `cat-1.png` …; in a folder `image-1.png` …. */
function outputPath({ out, count }: Flags, index: number): string {
  const ending = extname(out);
  if (ending.toLowerCase() !== ".png") return join(out, `image-${index + 1}.png`);
  return count === 1 ? out : `${out.slice(0, -ending.length)}-${index + 1}${ending}`;
}

interface Steps {
  show(done: number): void;
  /** Prints with the bar out of the way. */
  line(print: () => void): void;
  stop(): void;
}

/** A bar of all steps on a terminal; nothing elsewhere. */
function showSteps(stream: NodeJS.WritableStream & { isTTY?: boolean }, total: number): Steps {
  if (!stream.isTTY) return { show: () => undefined, line: (print) => print(), stop: () => undefined }; // prettier-ignore
  const bar = new SingleBar({
    stream,
    format: "{bar} {value}/{total} steps  {eta_formatted} left",
    barsize: 30,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    clearOnComplete: true,
    gracefulExit: false,
  });
  const show = (done: number): void => {
    if (bar.isActive) bar.update(done);
    else bar.start(total, done);
  };
  let last = 0;
  return {
    show(done) {
      last = done;
      show(done);
    },
    line(print) {
      bar.stop();
      print();
      if (last < total) show(last);
    },
    stop: () => bar.stop(),
  };
}

function parseSize(text: string): readonly [number, number] {
  const [, width, height = width] = /^(\d+)(?:[x×](\d+))?$/i.exec(text) ?? [];
  if (width === undefined)
    throw new InvalidArgumentError("Expected a size such as 512x768 or 512.");
  return [Number(width), Number(height)];
}

function parseOutput(text: string): string {
  if (!/\.(jpe?g|webp|gif|bmp|tiff?|avif)$/i.test(text)) return text;
  throw new InvalidArgumentError("Expected a .png file or a folder: images are written as PNG.");
}
