import { LorikeetError } from "../errors.ts";
import { renderAnswers } from "./chat-spans.ts";
import type { ChatTemplate, Span } from "./chat-template.ts";
import type { ChatRow, CompletionRow, Row, TextRow } from "./rows/row.ts";
import { strftime } from "./strftime.ts";
import { encodeWithSpans, type MaskedTokens } from "./token-mask.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Which tokens count in the loss. `completion`: what the assistant says, with the token that ends its turn, or the
 * completion with the end of text. `prompt`: all other tokens, to train a model of the asking side. `all`: both.
 * Raw text is trained on as a whole, whatever this says.
 */
export type TrainOn = "completion" | "prompt" | "all";

/** A sample as a model reads it. */
export interface Example {
  /** Token ids, length ≥ 1. */
  readonly inputIds: Int32Array;
  /** 1 where a token is a target; the first never is, as nothing precedes it. Same length as `inputIds`. */
  readonly labelMask: Uint8Array;
}

/** How rows become samples. */
export interface ExampleOptions {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  readonly trainOn: TrainOn;
  /** Longest sample in tokens. */
  readonly maxLength: number;
}

/** The samples of one row. */
export interface RowExamples {
  /** One, or several for a raw text that is longer than a sample. */
  readonly examples: readonly Example[];
  /** Tokens that were cut off the end because the row was longer than `maxLength`. */
  readonly cutTokens: number;
}

/**
 * Tokenizes `row` and marks what is trained. Templates that show the date are given 26 July 2024. Chats and completions longer than `maxLength` are cut at the end; raw
 * text is split instead, each part beginning with the last token of the one before, so that each token is trained once.
 * @throws LorikeetError `chat-template`, `chat-spans`
 */
export function examplesOf(row: Row, options: ExampleOptions): RowExamples {
  if (row.kind === "text") return { examples: splitText(row, options), cutTokens: 0 };
  const tokens = row.kind === "chat" ? encodeChat(row, options) : encodeCompletion(row, options);
  return cut(tokens, options.maxLength);
}

/** Targets of an example. */
export function supervisedTokens(example: Example): number {
  let count = 0;
  for (const bit of example.labelMask) count += bit;
  return count;
}

// a date that templates show must not make tomorrow's run of the same data another one; Llama 3's own stand-in
const today = new Date(2024, 6, 26);
const variables = { strftime_now: (format: string) => strftime(today, format) };

function encodeChat({ messages, tools }: ChatRow, options: ExampleOptions): MaskedTokens {
  const { tokenizer, template, trainOn } = options;
  if (trainOn === "all") {
    const { text } = template.render(messages, { tools, variables });
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    return { ids, mask: new Uint8Array(ids.length).fill(1) };
  }
  const { text, answers } = renderAnswers(template, messages, { tools, variables });
  const turns = messages.filter(({ role }) => role === "assistant");
  const hasUntrained = turns.some(({ train }) => train === false);
  if (hasUntrained && answers.length !== turns.length)
    throw new LorikeetError(
      "chat-spans",
      `Expected the template's {% generation %} to mark ${turns.length} assistant turns, got ${answers.length}: which are not to be trained can't be told`,
      { hint: "Let the template mark each assistant turn once." },
    );
  const spans = hasUntrained ? answers.filter((_, i) => turns[i]!.train !== false) : answers;
  return select(encodeWithSpans(tokenizer, text, spans, { addSpecialTokens: false }), trainOn);
}

function encodeCompletion(
  { prompt, completion }: CompletionRow,
  options: ExampleOptions,
): MaskedTokens {
  const { tokenizer, trainOn } = options;
  const text = prompt + completion;
  const spans: Span[] = [{ start: prompt.length, end: text.length }];
  const { ids, mask } = encodeWithSpans(tokenizer, text, spans, { addSpecialTokens: true });
  const { eosId } = tokenizer.specials;
  if (eosId === undefined || ids.at(-1) === eosId) {
    if (ids.at(-1) === eosId) mask[ids.length - 1] = 1; // added by the post-processor, outside the text
    return select({ ids, mask }, trainOn);
  }
  return select({ ids: [...ids, eosId], mask: Uint8Array.of(...mask, 1) }, trainOn);
}

function select({ ids, mask }: MaskedTokens, trainOn: TrainOn): MaskedTokens {
  if (trainOn === "completion") return { ids, mask };
  return { ids, mask: mask.map((bit) => (trainOn === "all" ? 1 : 1 - bit)) };
}

function cut({ ids, mask }: MaskedTokens, maxLength: number): RowExamples {
  // what follows the last target changes no loss
  const length = Math.max(1, mask.lastIndexOf(1) + 1);
  const kept = Math.min(length, maxLength);
  return { examples: [toExample(ids.slice(0, kept), mask)], cutTokens: length - kept };
}

function splitText({ text, continues }: TextRow, options: ExampleOptions): Example[] {
  const { tokenizer, maxLength } = options;
  const ids = tokenizer.encode(text);
  const { eosId } = tokenizer.specials;
  if (!continues && eosId !== undefined && ids.at(-1) !== eosId) ids.push(eosId);
  const examples: Example[] = [];
  const trained = new Uint8Array(Math.min(ids.length, maxLength)).fill(1);
  for (let start = 0; start === 0 || start < ids.length - 1; start += maxLength - 1)
    examples.push(toExample(ids.slice(start, start + maxLength), trained));
  return examples;
}

function toExample(ids: readonly number[], mask: Uint8Array): Example {
  const labelMask = mask.slice(0, ids.length);
  labelMask[0] = 0;
  return { inputIds: Int32Array.from(ids), labelMask };
}
