import { basename, extname } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { refuseNonFinite } from "../adapter/finite.ts";
import { loadPipeline, pipelineNaming } from "../api/image-pipeline.ts";
import { loadModel, type LoadOptions } from "../api/load-model.ts";
import { exportGguf } from "../api/merge.ts";
import { plainAdapter } from "../api/plain-adapter.ts";
import { exportOnnx } from "../api/onnx-export.ts";
import type { WritableType } from "../formats/gguf/quantize.ts";
import { saveAdapter } from "../host/adapter-files.ts";
import { loadAnyAdapter, saveGgufAdapter, saveMlxAdapter } from "../host/adapter-formats.ts";
import { isImageAdapter, loadImageAdapter, saveImageAdapter } from "../host/image-adapter-files.ts";
import { refuseExisting } from "../host/output-folder.ts";
import type { OnnxSaveOptions } from "../host/save-onnx.ts";
import { isAdapter } from "../host/model-kinds.ts";
import { loadWithBase } from "./adapter-base.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";

const EXAMPLES = `
Examples:
  lorikeet convert out --to gguf -o out.gguf            an adapter for llama.cpp and Ollama
  lorikeet convert out --to mlx -o out-mlx
  lorikeet convert out-mlx --to peft -o out-peft
  lorikeet convert out --to kohya -o style.safetensors  an image adapter for ComfyUI, AUTOMATIC1111, kohya
  lorikeet convert style.safetensors --to diffusers -o out
  lorikeet convert out.gguf --to peft -o out --model storyteller-6m
  lorikeet convert storyteller-6m --to gguf -o base     a whole model
  lorikeet convert storyteller-6m --to onnx -o web      for Transformers.js`;

type Format = "peft" | "gguf" | "mlx" | "onnx" | "diffusers" | "kohya";

interface Flags {
  readonly to: Format;
  readonly output: string;
  readonly model?: string;
  readonly dtype?: string;
  readonly overwrite?: boolean;
  readonly plain?: boolean;
}

/** `lorikeet convert`: an adapter between PEFT, GGUF, mlx-lm, diffusers and kohya, or a model to GGUF or ONNX. */
export function register(command: Command, { out, err }: CliContext): void {
  command
    .argument(
      "<source>",
      "adapter (folder of PEFT or mlx-lm, file of llama.cpp, diffusers or kohya), or a model",
    )
    .requiredOption(
      "--to <format>",
      "peft, gguf or mlx; image adapters: diffusers, kohya or peft; models: gguf or onnx",
      parseFormat,
    )
    .requiredOption(
      "-o, --output <path>",
      "what to write: a folder; for gguf adapters, diffusers and kohya a file",
    )
    .option("-m, --model <ref>", "base of the adapter; default: the one that its config names")
    .option("--dtype <type>", "type of a model's matrices: f32, f16, bf16 or q8_0", parseType)
    .option(
      "--plain",
      "to peft: PiSSA and OLoRA as plain LoRA of the untouched base, of twice the rank",
    )
    .option("--overwrite", "replace what is there")
    .addHelpText("after", EXAMPLES)
    .action(async (source: string, flags: Flags) => {
      const options = { onDownload: showDownload(err) };
      const isImage = await isImageAdapter(source);
      const isText = !isImage && (await isAdapter(source));
      if ((isImage || isText) && flags.dtype !== undefined)
        command.error(`error: --dtype is for models, ${source} is an adapter`, { exitCode: 2 });
      if (isImage) await convertImageAdapter(command, source, flags);
      else if (isText) await convertAdapter(command, source, flags, options);
      else await convertModel(command, source, flags, options);
      out.write(`${flags.output}\n`);
    });
}

async function convertAdapter(
  command: Command,
  source: string,
  { to, output, model, overwrite, plain }: Flags,
  options: LoadOptions,
): Promise<void> {
  if (!overwrite) await refuseExisting(output);
  if (to === "onnx" || to === "diffusers" || to === "kohya")
    command.error(`error: ${source} is an adapter of a language model; ${to === "onnx" ? "merge it for Transformers.js (lorikeet merge --to onnx)" : `${to} files hold those of image models`}`, { exitCode: 2 }); // prettier-ignore
  if (to === "peft" && model === undefined && !plain) {
    const alone = await loadAnyAdapter(source, undefined, options);
    refuseNonFinite(alone);
    return saveAdapter(alone, output);
  }
  const { adapter: read, base } = await loadWithBase(source, model, options);
  refuseNonFinite(read);
  if (to === "peft" && !plain) return saveAdapter(read, output);
  const adapter = await plainAdapter(read, base);
  if (to === "peft") return saveAdapter(adapter, output);
  const { config } = base.checkpoint;
  if (to === "gguf") {
    const file = extname(output) === ".gguf" ? output : `${output}/${basename(output)}.gguf`;
    return saveGgufAdapter(adapter, { config, layers: base.layers }, file);
  }
  return saveMlxAdapter(adapter, Number(config["num_hidden_layers"] ?? config["n_layer"]), output);
}

/** Between diffusers, kohya and PEFT; `--model` tells names of models that are none of the published. */
async function convertImageAdapter(
  command: Command,
  source: string,
  { to, output, model, overwrite }: Flags,
): Promise<void> {
  if (to === "gguf" || to === "mlx" || to === "onnx")
    command.error(`error: ${source} is an image adapter; these are converted to diffusers, kohya or peft`, { exitCode: 2 }); // prettier-ignore
  if (!overwrite) await refuseExisting(output);
  const naming = model === undefined ? {} : pipelineNaming(await loadPipeline(model));
  const adapter = await loadImageAdapter(source, naming);
  refuseNonFinite(adapter);
  await saveImageAdapter(adapter, output, to, naming);
}

async function convertModel(
  command: Command,
  source: string,
  flags: Flags,
  options: LoadOptions,
): Promise<void> {
  const { to, output, dtype, overwrite } = flags;
  if (to === "onnx") {
    if (dtype !== undefined && dtype !== "f32" && dtype !== "f16") command.error("error: ONNX models are written as f32 or f16", { exitCode: 2 }); // prettier-ignore
    const type: Pick<OnnxSaveOptions, "dtype"> = dtype === undefined ? {} : { dtype };
    await exportOnnx(await loadModel(source, options), output, {
      ...type,
      ...(overwrite && { overwrite }),
    });
    return;
  }
  if (to !== "gguf") command.error(`error: ${source} is no adapter; models are converted to gguf or onnx`, { exitCode: 2 }); // prettier-ignore
  await exportGguf(await loadModel(source, options), output, {
    ...(dtype !== undefined && { type: dtype.toUpperCase() as WritableType }),
    ...(overwrite && { overwrite }),
  });
}

function parseFormat(text: string): string {
  if (["peft", "gguf", "mlx", "onnx", "diffusers", "kohya"].includes(text)) return text;
  throw new InvalidArgumentError("Expected peft, gguf, mlx, onnx, diffusers or kohya.");
}

function parseType(text: string): string {
  if (["f32", "f16", "bf16", "q8_0"].includes(text.toLowerCase())) return text;
  throw new InvalidArgumentError("Expected f32, f16, bf16 or q8_0.");
}
