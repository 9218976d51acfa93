import { LorikeetError } from "../../errors.ts";

type Json = Readonly<Record<string, unknown>>;

/** How a byte-level BPE vocabulary of llama.cpp (`tokenizer.ggml.pre`) prepares text, as tokenizer.json says it. */
export interface PreTokenizing {
  readonly preTokenizer: Json;
  readonly normalizer: Json | null;
  /** Whether a piece that is a token as a whole is taken before merging. */
  readonly ignoreMerges: boolean;
  /** Whether text begins with the bos token when the file does not say. */
  readonly addsBos: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const llama3 = (digits: string): string =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
const QWEN35 = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`;
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const cased = (ending: string, digits: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${ending}|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${ending}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";

const byteLevel = (useRegex: boolean): Json => {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: useRegex };
};
const sequence = (...pretokenizers: Json[]): Json => ({ type: "Sequence", pretokenizers });
/** Cuts text at each match of each pattern in turn. */
const splits = (...patterns: string[]): Json =>
  sequence(
    ...patterns.map((pattern) => {
      return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
    }),
    byteLevel(false),
  );
const digits: Json = { type: "Digits", individual_digits: true };

const plain = { normalizer: null, ignoreMerges: false, addsBos: false };
const whole = { normalizer: null, ignoreMerges: true, addsBos: true };
const GPT2_LIKE: PreTokenizing = { ...plain, preTokenizer: byteLevel(true) };
const DIGITS: PreTokenizing = { ...plain, preTokenizer: sequence(digits, byteLevel(true)) };
const LLAMA3: PreTokenizing = { ...whole, preTokenizer: splits(llama3("\\p{N}{1,3}")) };
const QWEN2: PreTokenizing = {
  ...plain,
  normalizer: { type: "NFC" },
  preTokenizer: splits(llama3("\\p{N}")),
};

/** https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp */
const KNOWN: Readonly<Record<string, PreTokenizing>> = {
  default: {
    ...plain,
    preTokenizer: splits("[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"),
  },
  "gpt-2": GPT2_LIKE,
  "phi-2": GPT2_LIKE,
  olmo: GPT2_LIKE,
  mpt: GPT2_LIKE,
  jais: GPT2_LIKE,
  smollm: DIGITS,
  starcoder: DIGITS,
  refact: DIGITS,
  "command-r": DIGITS,
  codeshell: DIGITS,
  exaone: DIGITS,
  "llama-bpe": LLAMA3,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  falcon3: LLAMA3,
  pixtral: LLAMA3,
  dbrx: { ...plain, preTokenizer: LLAMA3.preTokenizer },
  "smaug-bpe": { ...plain, preTokenizer: LLAMA3.preTokenizer },
  glm4: { ...plain, preTokenizer: LLAMA3.preTokenizer },
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  megrez: QWEN2,
  stablelm2: { ...QWEN2, normalizer: null },
  qwen35: { ...QWEN2, preTokenizer: splits(QWEN35) },
  "gpt-4o": { ...plain, preTokenizer: splits(cased(`${CONTRACTIONS}?`, "\\p{N}{1,3}")) },
  llama4: { ...plain, preTokenizer: splits(cased(`${CONTRACTIONS}?`, "\\p{N}{1,3}")) },
  tekken: { ...whole, preTokenizer: splits(cased("", "\\p{N}")) },
};

/** How the vocabulary that llama.cpp calls `pre` prepares text. @throws LorikeetError `unsupported-tokenizer` */
export function preTokenizing(pre: string): PreTokenizing {
  const known = Object.hasOwn(KNOWN, pre) ? KNOWN[pre] : undefined;
  if (known) return known;
  throw new LorikeetError(
    "unsupported-tokenizer",
    `Expected tokenizer.ggml.pre to be one of ${Object.keys(KNOWN).join(", ")}, got "${pre}"`,
    { hint: "Use the model's Hugging Face folder, which has its tokenizer.json." },
  );
}

/**
 * llama.cpp's name for the way that `preTokenizer` (of a tokenizer.json) cuts text.
 * @throws LorikeetError `unsupported-tokenizer` when it has none
 */
export function ggmlPreTokenizer(preTokenizer: unknown, ignoresMerges: boolean): string {
  const wanted = essence(preTokenizer);
  for (const [name, known] of Object.entries(KNOWN))
    if (essence(known.preTokenizer) === wanted && (known.ignoreMerges || !ignoresMerges))
      return name;
  throw new LorikeetError(
    "unsupported-tokenizer",
    "Expected a pre-tokenizer that llama.cpp knows, got another",
    { hint: `llama.cpp splits text like ${Object.keys(KNOWN).join(", ")}.` },
  );
}

/** What of a pre-tokenizer decides where text is cut. */
function essence(preTokenizer: unknown): string {
  const steps = flatten(preTokenizer).map((step) => {
    const { type, pattern, individual_digits, use_regex } = step as Record<string, unknown>;
    if (type === "ByteLevel") return use_regex === false ? "bytes" : "gpt2 bytes";
    if (type === "Digits") return individual_digits === true ? "digit" : "digits";
    return `${String(type)} ${JSON.stringify(pattern)}`;
  });
  return steps.join("; ");
}

function flatten(preTokenizer: unknown): unknown[] {
  const { type, pretokenizers } = (preTokenizer ?? {}) as Record<string, unknown>;
  return type === "Sequence" ? (pretokenizers as unknown[]).flatMap(flatten) : [preTokenizer ?? {}];
}
