import { join } from "node:path";
import { turnEnding } from "../data/chat-spans.ts";
import { createChatTemplate } from "../data/chat-template.ts";
import { planGgufModel } from "../formats/gguf/export-model.ts";
import { ggmlBytes } from "../formats/gguf/types.ts";
import type { WritableType } from "../formats/gguf/quantize.ts";
import { encodeGguf } from "../formats/gguf/write.ts";
import { sizeOf } from "../tensor/shape.ts";
import { writeAtomically } from "./files.ts";
import { modelfile } from "./modelfile.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { writeFolder } from "./output-folder.ts";
import { ggufSummary } from "./stored-files.ts";
import type { SavedModel, SaveOptions } from "./save-checkpoint.ts";

/** How a model is written as GGUF. */
export interface GgufSaveOptions extends Pick<SaveOptions, "overwrite" | "onProgress"> {
  /** Type of matrices; by default that of the checkpoint's own. Vectors are F32. */
  readonly type?: WritableType;
}

/**
 * Writes `checkpoint` into `folder` as one GGUF file for llama.cpp, named after the model, and an Ollama Modelfile.
 * @throws LorikeetError `output-exists`; what `planGgufModel` throws for a model that llama.cpp cannot hold
 */
export async function saveGguf(
  checkpoint: Checkpoint,
  folder: string,
  options: GgufSaveOptions = {},
): Promise<SavedModel> {
  const type = options.type ?? (await storedType(checkpoint));
  const name = checkpoint.name.replace(/\.(F32|F16|BF16|I?Q\d\w*)$/i, ""); // of a GGUF file's own type
  const file = `${name}.${type}.gguf`;
  const { metadata, specs, read } = planGgufModel(exported(checkpoint), { type });
  return writeFolder(folder, options, async (temporary) => {
    let done = 0;
    const reading = (name: string): ReturnType<typeof read> => {
      options.onProgress?.(done++, specs.length, name);
      return read(name);
    };
    await writeAtomically(join(temporary, file), encodeGguf(metadata, specs, reading));
    await writeAtomically(join(temporary, "Modelfile"), ollama(checkpoint, file));
    const bytes = specs.reduce((sum, spec) => sum + ggmlBytes(spec.type, sizeOf(spec.shape)), 0);
    return { path: folder, files: [file, "Modelfile"], bytes };
  });
}

function exported(checkpoint: Checkpoint): Parameters<typeof planGgufModel>[0] {
  const { name, config, weights, tokenizer, tokenizerConfig, chatTemplate } = checkpoint;
  const withTemplate = chatTemplate === undefined ? {} : { chat_template: chatTemplate };
  return {
    name,
    config,
    weights,
    ...(tokenizer !== undefined && { tokenizer: tokenizer as Readonly<Record<string, unknown>> }),
    tokenizerConfig: { ...tokenizerConfig, ...withTemplate },
  };
}

/** The type of the checkpoint's matrices; Q8_0 where they are quantized, as it is the one quantized type that is written. */
export async function storedType({ path, weights }: Checkpoint): Promise<WritableType> {
  const inFile = path.endsWith(".gguf") ? (await ggufSummary(path)).types : [];
  if (inFile.some((type) => !["F32", "F16", "BF16"].includes(type))) return "Q8_0";
  const matrices = weights.names.map((name) => weights.get(name)).filter(({ shape }) => shape.length > 1); // prettier-ignore
  const types: Partial<Record<string, WritableType>> = { f16: "F16", bf16: "BF16" };
  return types[matrices[0]?.dtype ?? "f32"] ?? "F32";
}

function ollama({ chatTemplate, tokenizerConfig }: Checkpoint, file: string): string {
  const text = (key: string): string | undefined => {
    const token = tokenizerConfig?.[key];
    return typeof token === "string" ? token : (token as { content?: string } | undefined)?.content;
  };
  const [bosToken, eosToken] = [text("bos_token"), text("eos_token")];
  const template =
    chatTemplate === undefined
      ? undefined
      : createChatTemplate(chatTemplate, { bosToken, eosToken });
  // what ends an answer in a chat is often another token than what ends a text
  const stops = [eosToken ?? "", template ? turnEnding(template).trim() : ""];
  const unique = [...new Set(stops)].filter((stop) => stop !== "");
  return modelfile({ file, template, bosToken, stops: unique });
}
