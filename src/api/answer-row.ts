import { type ChatStops, chatStops } from "../data/chat-stops.ts";
import type { Message } from "../data/message.ts";
import { LorikeetError } from "../errors.ts";
import { sampleToken, type SamplingOptions } from "../generate/sampling.ts";
import { stopFilter } from "../generate/stop-text.ts";
import { Random } from "../tensor/random.ts";
import { contextOf } from "../models/config.ts";
import { checkGeneration } from "./check-generation.ts";
import type { Model } from "./model.ts";

/** How text is generated. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most; 128 by default. */
  readonly maxNewTokens?: number;
  /** Texts that end generation; they are not given out. */
  readonly stop?: readonly string[];
  readonly seed?: number;
  /** The prompt of a chat gets an opened assistant turn and the template's own special tokens; default true. */
  readonly addGenerationPrompt?: boolean;
}

/** One generated token and the text that it completes (empty in the middle of a character). */
export interface GeneratedToken {
  readonly id: number;
  readonly text: string;
}

/** Ids of `prompt`: a text as it stands, or a chat rendered by the model's template. */
export function promptIds(
  model: Model,
  prompt: string | readonly Message[],
  options: GenerateOptions = {},
): number[] {
  if (typeof prompt === "string") return model.tokenizer.encode(prompt);
  const { text } = model.chatTemplate.render(prompt, {
    addGenerationPrompt: options.addGenerationPrompt ?? true,
  });
  return model.tokenizer.encode(text, { addSpecialTokens: false });
}

/** A prompt that is being answered. */
export interface AnswerRow {
  /** Prompt and answer so far. */
  readonly ids: number[];
  readonly isDone: () => boolean;
  /** The next token, sampled from `logits`, and text that becomes complete; nothing when the row is done. */
  take(logits: Float32Array): GeneratedToken[];
}

/**
 * Row number `row` of a batch; the first draws what `generate` draws with the same seed.
 * @throws LorikeetError `config-invalid`, `empty-prompt`, `context-length`
 */
export function openRow(
  model: Model,
  prompt: string | readonly Message[],
  options: GenerateOptions,
  row: number,
): AnswerRow {
  checkGeneration(options);
  const ids = promptIds(model, prompt, options);
  const limit = roomFor(model, ids.length, options.maxNewTokens ?? 128);
  const random =
    row === 0 ? new Random(options.seed ?? 0) : new Random(options.seed ?? 0).fork(`row ${row}`);
  const stream = model.tokenizer.stream({ skipSpecialTokens: true });
  const ends = stopsOf(model, prompt);
  const filter = stopFilter([...(options.stop ?? []), ...ends.strings]);
  const start = ids.length;
  let done = limit === 0;
  const rest = (): GeneratedToken[] => {
    done = true;
    const text = filter.push(stream.flush()).text + filter.flush();
    return text === "" ? [] : [{ id: ids.at(-1)!, text }];
  };
  return {
    ids,
    isDone: () => done,
    take(logits) {
      if (done) return [];
      const id = sampleToken(logits, ids, options, random);
      if (ends.ids.includes(id)) return rest();
      ids.push(id);
      const { text, stopped } = filter.push(stream.push(id));
      if (stopped) done = true;
      const isLast = !stopped && ids.length - start >= limit;
      return [{ id, text }, ...(isLast ? rest() : [])];
    },
  };
}

/** What ends the answer to `prompt`. */
function stopsOf(model: Model, prompt: string | readonly Message[]): ChatStops {
  if (typeof prompt === "string") return { ids: model.tokenizer.specials.stopIds, strings: [] };
  return chatStops(model.chatTemplate, model.tokenizer);
}

/** How many tokens of `wanted` fit after a prompt. @throws LorikeetError `empty-prompt`, `context-length` */
function roomFor(model: Model, promptLength: number, wanted: number): number {
  const context = contextOf(model.checkpoint.config);
  if (promptLength === 0)
    throw new LorikeetError("empty-prompt", "Expected a prompt of at least one token, got none", {
      hint: "Give a text; this model's tokenizer puts no token before an empty one.",
    });
  if (promptLength >= context)
    throw new LorikeetError(
      "context-length",
      `Expected a prompt shorter than the model's context of ${context} tokens, got ${promptLength}`,
      { hint: "Shorten the prompt; of a chat, leave out the oldest messages." },
    );
  return Math.min(wanted, context - promptLength);
}
