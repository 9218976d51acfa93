import { basename, join } from "node:path";
import type { WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import type { HfConfig } from "../models/config.ts";
import { currentWeightName } from "../models/weight-names.ts";
import { getString } from "../formats/gguf/metadata.ts";
import { tokenizerFromGguf } from "../formats/gguf/tokenizer.ts";
import { openWeights } from "./checkpoint.ts";
import { openGguf } from "./checkpoint-gguf.ts";
import { isFile, readText } from "./files.ts";
import { renamedWeights } from "./renamed-weights.ts";

/** A model on disk: its configuration, weights (not read yet) and the files that make its tokenizer. */
export interface Checkpoint {
  readonly name: string;
  /** Folder of a Hugging Face checkpoint, or the GGUF file. */
  readonly path: string;
  readonly config: HfConfig;
  readonly weights: WeightSource;
  /** Parsed tokenizer.json, tokenizer_config.json and generation_config.json; undefined where there is none. */
  readonly tokenizer: unknown;
  readonly tokenizerConfig: Readonly<Record<string, unknown>> | undefined;
  readonly generationConfig: Readonly<Record<string, unknown>> | undefined;
  /** Jinja source, from tokenizer_config.json or chat_template.jinja. */
  readonly chatTemplate: string | undefined;
  /** The same for chats with tools, where the model has a template named `tool_use`. */
  readonly toolTemplate?: string | undefined;
}

/**
 * Opens a folder in Hugging Face layout: config.json and safetensors (or PyTorch) files, one or several with an index.
 * @throws LorikeetError `file-not-found` when config.json is absent, `malformed-json`, `chat-template` when it is no text, and what `openWeights` throws
 */
export async function openFolder(folder: string): Promise<Checkpoint> {
  const config = await readJson(join(folder, "config.json"));
  if (!config)
    throw new LorikeetError(
      "file-not-found",
      `Expected a model folder with config.json, found none in ${folder}`,
      {
        hint: "Give a Hugging Face folder, a .gguf file, a hub id (owner/name) or storyteller-6m.",
      },
    );
  const tokenizerConfig = await readJson(join(folder, "tokenizer_config.json"));
  return {
    name: basename(folder),
    path: folder,
    config,
    weights: renamedWeights(await openWeights(folder), (stored) =>
      currentWeightName(String(config["model_type"]), stored),
    ),
    tokenizer: await readJson(join(folder, "tokenizer.json")),
    tokenizerConfig,
    generationConfig: await readJson(join(folder, "generation_config.json")),
    ...(await chatTemplatesOf(folder, tokenizerConfig)),
  };
}

/** Opens a GGUF file as the same model in Hugging Face layout. @throws LorikeetError what `openGguf` throws */
export async function openGgufModel(path: string): Promise<Checkpoint> {
  const { header, config, weights } = await openGguf(path);
  const files = tokenizerFromGguf(header.metadata);
  const template = files.config["chat_template"];
  return {
    name: basename(path, ".gguf"),
    path,
    config,
    weights,
    tokenizer: files.tokenizer,
    tokenizerConfig: files.config,
    generationConfig: files.generationConfig,
    chatTemplate: typeof template === "string" ? template : undefined,
    toolTemplate: getString(header.metadata, "tokenizer.chat_template.tool_use"),
  };
}

async function chatTemplatesOf(
  folder: string,
  tokenizerConfig: Readonly<Record<string, unknown>> | undefined,
): Promise<Pick<Checkpoint, "chatTemplate" | "toolTemplate">> {
  const inFile = (name: string): Promise<string | undefined> => textOf(join(folder, name));
  const given = tokenizerConfig?.["chat_template"];
  const file = await inFile("chat_template.jinja");
  const isUnderstood = typeof (given ?? "") === "string" || areNamed(given);
  if (file === undefined && !isUnderstood)
    throw new LorikeetError(
      "chat-template",
      `Expected chat_template in ${join(folder, "tokenizer_config.json")} to be a text, or a list of {name, template}, got ${JSON.stringify(given).slice(0, 80)}`,
      { hint: "Correct it, take it out, or add the template as chat_template.jinja." },
    );
  const named = areNamed(given) ? given : [];
  const inConfig = (wanted: string): string | undefined =>
    named.find(({ name }) => name === wanted)?.template;
  const plain = typeof given === "string" ? given : inConfig("default");
  return {
    chatTemplate: file ?? plain,
    toolTemplate:
      (await inFile("additional_chat_templates/tool_use.jinja")) ?? inConfig("tool_use"),
  };
}

function areNamed(given: unknown): given is { name: string; template: string }[] {
  return (
    Array.isArray(given) &&
    given.every((entry: Record<string, unknown> | null) => typeof entry?.["name"] === "string" && typeof entry["template"] === "string") // prettier-ignore
  );
}

async function textOf(path: string): Promise<string | undefined> {
  return (await isFile(path)) ? readText(path) : undefined;
}

/** The object in the JSON file `path`, or undefined when there is no such file. @throws LorikeetError `malformed-json` */
export async function readJson(
  path: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  if (!(await isFile(path))) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(await readText(path));
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause;
    throw new LorikeetError("malformed-json", `Expected ${path} to be JSON; it does not parse`, {
      hint: "Download it again, or compare it with the original.",
      cause,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Readonly<Record<string, unknown>>;
  throw new LorikeetError(
    "malformed-json",
    `Expected ${path} to hold a JSON object, got ${JSON.stringify(value).slice(0, 80)}`,
    { hint: "Download it again, or compare it with the original." },
  );
}
