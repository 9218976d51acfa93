type Json = Readonly<Record<string, unknown>>;

/** The tokens that frame text, by id and by spelling. */
export interface SpecialTokens {
  readonly bosId: number | undefined;
  readonly bosToken: string | undefined;
  readonly eosId: number | undefined;
  readonly eosToken: string | undefined;
  /** Fills batches; eos, or else 0, where a model names none. */
  readonly padId: number;
  /** Every id that ends generation: eos of the tokenizer, of generation_config.json and of config.json. */
  readonly stopIds: readonly number[];
}

/** The spelling of a special token of tokenizer_config.json: a string, or an object with `content`. */
export function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return undefined;
  const { content } = value as { content?: unknown };
  return typeof content === "string" ? content : undefined;
}

/** Finds the special tokens in the files of a model; the tokenizer's own names win over the models' ids. */
export function specialTokens(
  files: {
    readonly tokenizer: unknown;
    readonly config?: Json | undefined;
    readonly generationConfig?: Json | undefined;
    readonly modelConfig?: Json | undefined;
  },
  idOf: (token: string) => number | undefined,
): SpecialTokens {
  const configs = [files.generationConfig, files.modelConfig];
  const tokens = vocabularyById(files.tokenizer);
  const find = (name: string): { id: number | undefined; token: string | undefined } => {
    const token = tokenText(files.config?.[`${name}_token`]);
    if (token !== undefined && idOf(token) !== undefined) return { id: idOf(token), token };
    const id = configs.flatMap((config) => ids(config?.[`${name}_token_id`]))[0];
    return { id, token: id === undefined ? undefined : tokens(id) };
  };
  const [bos, eos, pad] = [find("bos"), find("eos"), find("pad")];
  const stops = configs.flatMap((config) => ids(config?.["eos_token_id"]));
  return {
    bosId: bos.id,
    bosToken: bos.token,
    eosId: eos.id,
    eosToken: eos.token,
    padId: pad.id ?? eos.id ?? 0,
    stopIds: [...new Set(eos.id === undefined ? stops : [eos.id, ...stops])],
  };
}

function ids(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).filter((id): id is number =>
    Number.isInteger(id),
  );
}

function vocabularyById(tokenizer: unknown): (id: number) => string | undefined {
  const json = tokenizer as {
    added_tokens?: { id: number; content: string }[];
    model?: { vocab?: Record<string, number> | [string, number][] };
  };
  return (id) => {
    const added = json.added_tokens?.find((token) => token.id === id);
    if (added) return added.content;
    const vocab = json.model?.vocab;
    if (Array.isArray(vocab)) return vocab[id]?.[0];
    return Object.entries(vocab ?? {}).find(([, value]) => value === id)?.[0];
  };
}
