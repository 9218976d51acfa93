import { type Command, InvalidArgumentError, Option } from "commander";
import { merge, type MergeResult, mergeToGguf } from "../api/merge.ts";
import { mergeToOnnx } from "../api/onnx-export.ts";
import type { WritableType } from "../formats/gguf/quantize.ts";
import { adapterPath } from "../host/adapter-formats.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";
import type { OnnxSaveOptions } from "../host/save-onnx.ts";
import type { DType } from "../tensor/dtype.ts";
import { loadWithBase } from "./adapter-base.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";
import { isImageMerge, mergeImage } from "./merge-image.ts";

const EXAMPLES = `
Examples:
  lorikeet merge --adapter out -o merged
  lorikeet merge --model HuggingFaceTB/SmolLM2-135M-Instruct --adapter out -o merged --dtype bf16
  lorikeet merge --adapter out -o ollama --to gguf --dtype q8_0
  lorikeet merge --adapter out -o web --to onnx         for Transformers.js
  lorikeet merge --adapter out -o merged --max-shard-size 2GB
  lorikeet merge --model stable-diffusion-v1-5 --adapter style.safetensors:0.8 -o merged`;

type Format = "safetensors" | "gguf" | "onnx";

/** Options of `merge`, as commander parses them. */
interface Flags {
  readonly model?: string;
  readonly adapter: string;
  readonly output: string;
  readonly to: Format;
  readonly dtype?: string;
  readonly maxShardSize: number;
  readonly safe: boolean;
  readonly requantize?: boolean;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** `lorikeet merge`: writes base and adapter as one model. */
export function register(command: Command, context: CliContext): void {
  command
    .option(
      "-m, --model <ref>",
      "base: hub id, folder or .gguf file; default: the one that the adapter names",
    ) // prettier-ignore
    .requiredOption(
      "-a, --adapter <ref>",
      "adapter: folder of PEFT or mlx-lm, .gguf file, image LoRA, hub id",
    )
    .requiredOption("-o, --output <folder>", "new folder for the merged model")
    .option(
      "--to <format>",
      "safetensors (Hugging Face folder), gguf (with an Ollama Modelfile) or onnx (for Transformers.js)",
      parseFormat,
      "safetensors",
    ) // prettier-ignore
    .option(
      "--dtype <type>",
      "f32, f16, bf16, for gguf also q8_0; default: the base's, for onnx f32",
      parseDType,
    )
    .addOption(
      new Option("--max-shard-size <size>", "largest file of weights, such as 2GB")
        .argParser(parseSize)
        .default(5e9, "5GB"),
    )
    .option("--safe", "refuse merged weights that are not finite", true)
    .option("--no-safe", "write them all the same")
    .option("--requantize", "merge into a quantized base all the same")
    .option("--overwrite", "replace what is in the output folder")
    .option("--json", "print what was written as JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: Flags) => {
      const onDownload = showDownload(context.err);
      if (await isImageMerge(flags, { onDownload })) return mergeImage(command, flags, context);
      const { adapter, base: model } = await loadWithBase(flags.adapter, flags.model, { onDownload }); // prettier-ignore
      const { maxShardSize, output, to, dtype, safe, requantize, overwrite, json } = flags;
      const options = {
        safe,
        maxShardBytes: maxShardSize,
        tokenizerFrom: await adapterPath(flags.adapter),
        ...(requantize && { requantize }),
        ...(overwrite && { overwrite }),
      };
      const writers: Readonly<Record<Format, () => Promise<MergeResult>>> = {
        gguf: () => mergeToGguf(model, adapter, output, { ...options, ...(dtype !== undefined && { type: dtype.toUpperCase() as WritableType }) }),
        onnx: () => mergeToOnnx(model, adapter, output, { ...options, ...onnxType(command, dtype) }),
        safetensors: () => merge(model, adapter, output, { ...options, ...folderType(command, dtype) }),
      }; // prettier-ignore
      const result = await writers[to]();
      const { files, bytes, changed, unties } = result;
      if (json) context.out.write(`${JSON.stringify(result)}\n`);
      else {
        const untied = unties ? "; embedding and head are two matrices now" : "";
        context.out.write(`${output}: ${changed.length} weights merged${untied}, ${files.length} files, ${formatBytes(bytes)}\n`); // prettier-ignore
      }
    });
}

const SIZES: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, MIB: 2 ** 20, GIB: 2 ** 30 }; // prettier-ignore

function parseSize(text: string): number {
  const [, digits, unit] = /^([\d.]+)\s*([a-z]*)$/i.exec(text) ?? [];
  const size = Number(digits) * (SIZES[(unit || "B").toUpperCase()] ?? NaN);
  if (size > 0) return size;
  throw new InvalidArgumentError("Expected a size such as 500MB or 2GB.");
}

function folderType(command: Command, dtype: string | undefined): { dtype?: DType } {
  if (dtype === "q8_0") command.error("error: q8_0 is a type of GGUF files: add --to gguf", { exitCode: 2 }); // prettier-ignore
  return dtype === undefined ? {} : { dtype: dtype as DType };
}

function parseDType(text: string): string {
  const type = text.toLowerCase();
  if (["f32", "f16", "bf16", "q8_0"].includes(type)) return type;
  throw new InvalidArgumentError("Expected f32, f16, bf16 or q8_0.");
}

function onnxType(command: Command, dtype: string | undefined): Pick<OnnxSaveOptions, "dtype"> {
  if (dtype === undefined) return {};
  if (dtype !== "f32" && dtype !== "f16") command.error("error: ONNX models are written as f32 or f16", { exitCode: 2 }); // prettier-ignore
  return { dtype };
}

function parseFormat(text: string): Format {
  if (text === "safetensors" || text === "gguf" || text === "onnx") return text;
  throw new InvalidArgumentError("Expected safetensors, gguf or onnx.");
}
