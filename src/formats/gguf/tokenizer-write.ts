import { LorikeetError } from "../../errors.ts";
import type { GgufScalar, GgufScalarType, GgufValue } from "./metadata.ts";
import { ggmlPreTokenizer } from "./pre-tokenizers.ts";

type Json = Readonly<Record<string, unknown>>;

/** The files that describe a tokenizer, parsed. */
export interface TokenizerDescription {
  /** tokenizer.json */
  readonly tokenizer: Json;
  /** tokenizer_config.json: names special tokens, may hold the chat template. */
  readonly config?: Json;
  /** Rows of the model's embedding: ids without a token get an unused one. */
  readonly vocabSize: number;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** What of tokenizer.json's BPE model is written. */
interface Bpe {
  readonly type: string;
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (string | readonly [string, string])[];
  readonly unk_token?: string | null;
  readonly byte_fallback?: boolean;
  readonly ignore_merges?: boolean;
}

const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;

/**
 * The `tokenizer.*` metadata of a GGUF file for a byte-level or SentencePiece-like BPE tokenizer. GGUF keeps neither
 * which side of an added token swallows spaces nor Unicode normalization.
 * @throws LorikeetError `unsupported-tokenizer`
 */
export function tokenizerToGguf(description: TokenizerDescription): Map<string, GgufValue> {
  const { tokenizer, config = {}, vocabSize } = description;
  const model = tokenizer["model"] as Bpe | undefined;
  if (model?.type !== "BPE")
    throw unsupported(`a BPE model in tokenizer.json, got ${String(model?.type)}`);
  const isByteLevel = JSON.stringify(tokenizer["decoder"] ?? null).includes('"ByteLevel"');
  const { tokens, types } = listTokens(description, model);
  if (tokens.length > vocabSize)
    throw unsupported(`at most ${vocabSize} tokens (rows of the embedding), got ${tokens.length}`);
  const out = new Map<string, GgufValue>();
  const set = (
    key: string,
    type: GgufScalarType,
    value: GgufScalar | readonly GgufScalar[],
  ): unknown => out.set(`tokenizer.${key}`, { type, value });
  set("ggml.model", "string", isByteLevel ? "gpt2" : "llama");
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
  if (isByteLevel)
    set("ggml.pre", "string", ggmlPreTokenizer(tokenizer["pre_tokenizer"], model.ignore_merges === true)); // prettier-ignore
  else set("ggml.pre", "string", "default");
  set("ggml.tokens", "string", tokens);
  if (!isByteLevel) {
    set("ggml.scores", "f32", scoresOf(tokens, merges));
    set("ggml.add_space_prefix", "bool", JSON.stringify(tokenizer["normalizer"] ?? null).includes('"Prepend"')); // prettier-ignore
  }
  set("ggml.token_type", "i32", types);
  if (isByteLevel) set("ggml.merges", "string", merges);
  for (const [key, id] of specialIds(tokens, config)) set(`ggml.${key}_token_id`, "u32", id);
  const frame = framed(tokenizer["post_processor"]);
  set("ggml.add_bos_token", "bool", frame.before);
  set("ggml.add_eos_token", "bool", frame.after);
  if (typeof config["chat_template"] === "string")
    set("chat_template", "string", config["chat_template"]);
  return out;
}

/** llama.cpp's names of the special tokens that `config` names, with their ids. */
function specialIds(tokens: readonly string[], config: Json): [string, number][] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const keys = { bos: "bos", eos: "eos", pad: "padding", unk: "unknown" };
  return Object.entries(keys).flatMap(([name, key]): [string, number][] => {
    const id = ids.get(spelling(config[`${name}_token`]) ?? "");
    return id === undefined ? [] : [[key, id]];
  });
}

function listTokens(
  { tokenizer, vocabSize }: TokenizerDescription,
  model: Bpe,
): { tokens: string[]; types: number[] } {
  const tokens: string[] = [];
  const types: number[] = [];
  for (const [token, id] of Object.entries(model.vocab)) {
    tokens[id] = token;
    const isByte = model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(token);
    types[id] = isByte ? BYTE : token === model.unk_token ? UNKNOWN : NORMAL;
  }
  for (const { id, content, special } of (tokenizer["added_tokens"] ?? []) as AddedToken[]) {
    tokens[id] = content;
    if (types[id] !== UNKNOWN) types[id] = special ? CONTROL : USER_DEFINED;
  }
  for (let id = 0; id < Math.max(tokens.length, vocabSize); id++) {
    tokens[id] ??= `[PAD${id}]`;
    types[id] ??= UNUSED;
  }
  return { tokens, types };
}

/** SentencePiece prefers the piece of the highest score; a merge's rank, negated, keeps the order of merges. */
function scoresOf(tokens: readonly string[], merges: readonly string[]): number[] {
  const ranks = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const token = merge.replace(" ", "");
    if (!ranks.has(token)) ranks.set(token, rank);
  }
  return tokens.map((token) => -(ranks.get(token) ?? merges.length));
}

/** Whether a post-processor puts a token before or after each text. */
function framed(postProcessor: unknown): { before: boolean; after: boolean } {
  const { type, processors, single } = (postProcessor ?? {}) as Json;
  if (type === "Sequence") {
    const parts = (processors as unknown[]).map(framed);
    return { before: parts.some(({ before }) => before), after: parts.some(({ after }) => after) };
  }
  if (type !== "TemplateProcessing") return { before: false, after: false };
  const pieces = single as Json[];
  return { before: "SpecialToken" in pieces[0]!, after: "SpecialToken" in pieces.at(-1)! };
}

function spelling(token: unknown): string | undefined {
  if (typeof token === "string") return token;
  return (token as { content?: string } | null | undefined)?.content;
}

function unsupported(expected: string): LorikeetError {
  return new LorikeetError("unsupported-tokenizer", `Expected ${expected}`, {
    hint: "Save the model as a Hugging Face folder instead.",
  });
}
