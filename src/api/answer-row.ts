import type { Message } from "../data/message.ts";
import { sampleToken } from "../generate/sampling.ts";
import { stopFilter } from "../generate/stop-text.ts";
import { Random } from "../tensor/random.ts";
import {
  type GeneratedToken,
  type GenerateOptions,
  promptIds,
  roomFor,
  stopsOf,
} from "./generate.ts";
import type { Model } from "./model.ts";

/** A row of a batch that is being answered. */
export interface AnswerRow {
  /** Prompt and answer so far. */
  readonly ids: number[];
  readonly isDone: () => boolean;
  /** The next token, sampled from `logits`, and text that becomes complete; nothing when the row is done. */
  take(logits: Float32Array): GeneratedToken[];
}

/**
 * Row number `row` of a batch; the first draws what `generate` draws with the same seed.
 * @throws LorikeetError `empty-prompt`, `context-length`
 */
export function openRow(
  model: Model,
  prompt: string | readonly Message[],
  options: GenerateOptions,
  row: number,
): AnswerRow {
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
