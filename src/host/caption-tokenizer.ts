import { join } from "node:path";
import { CLIP_END, clipTokenizerJson } from "../data/clip-tokenizer.ts";
import { createTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { LorikeetError } from "../errors.ts";
import type { HfConfig } from "../models/config.ts";
import { isFile, readText } from "./files.ts";
import { readJson } from "./open-checkpoint.ts";

/** The tokenizer of a text encoder, and how captions are filled up. */
export interface CaptionTokenizer {
  readonly tokenizer: Tokenizer;
  /** Tokens of a caption, start and end included. */
  readonly length: number;
  readonly padId: number;
}

/**
 * Opens CLIP's tokenizer in `folder`: tokenizer.json, or vocab.json and merges.txt. `padId`: what captions are filled
 * with, where the folder's own is another model's.
 * @throws LorikeetError `no-tokenizer`, `tokenizer`, `malformed-json`
 */
export async function openCaptionTokenizer(
  folder: string,
  modelConfig: HfConfig,
  { padId }: { padId?: number } = {},
): Promise<CaptionTokenizer> {
  const config = await readJson(join(folder, "tokenizer_config.json"));
  const json = await readJson(join(folder, "tokenizer.json"));
  const tokenizer = createTokenizer({
    tokenizer: json ?? (await fromVocabulary(folder)),
    config,
    modelConfig,
  });
  const longest = Number(config?.["model_max_length"] ?? 77);
  const length = Math.min(longest, Number(modelConfig["max_position_embeddings"] ?? 77));
  // CLIP's own default; the model's configuration names another token, which its tokenizer does not use
  const end = config?.["pad_token"] === undefined ? tokenizer.tokenId(CLIP_END) : undefined;
  return { tokenizer, length, padId: padId ?? end ?? tokenizer.specials.padId };
}

async function fromVocabulary(folder: string): Promise<unknown> {
  const [vocabulary, merges] = [join(folder, "vocab.json"), join(folder, "merges.txt")];
  if (!(await isFile(vocabulary)) || !(await isFile(merges)))
    throw new LorikeetError(
      "no-tokenizer",
      `Expected tokenizer.json, or vocab.json and merges.txt, in ${folder}, found neither`,
      { hint: "Put the tokenizer folder of the model, or of any model of its kind, there." },
    );
  const words = (await readJson(vocabulary)) as Readonly<Record<string, number>>;
  return clipTokenizerJson(words, await readText(merges));
}
